"""The feature spec: columns, digest, and refusals that name the key."""

from __future__ import annotations

import pytest

from models.spec import FeatureSpec
from models.spec_reading import DAY, HOUR, SpecError, format_duration, parse_duration


def entity(**changes: object) -> dict[str, object]:
    return {"name": "card", "key": "card_id", "windows": ["1h", "24h"], "aggregates": ["count"], **changes}


def test_the_default_has_49_named_columns() -> None:
    """The default spec is the documented one: 49 columns, transaction first, then card, then terminal."""
    spec = FeatureSpec.default()
    assert len(spec.names) == 49
    assert spec.names[:6] == ("amount", "amount_log", "hour", "day_of_week", "weekend", "night")
    assert {"card_count_24h", "card_mean_7d", "card_seconds_since_last", "card_amount_over_mean_30d"} <= set(
        spec.names
    )
    assert {"terminal_count_7d", "terminal_risk_7d", "terminal_known_frauds_28d"} <= set(spec.names)
    assert {"terminal_fraud_run", "terminal_days_since_run"} <= set(spec.names)
    assert spec.entity("card").tags == ("terminal_id", "country")
    assert spec.entity("terminal").retention_ms == 37 * DAY


def test_a_spec_survives_its_mapping_and_keeps_its_digest() -> None:
    """`as_mapping` and `from_mapping` are inverse, and the digest depends on nothing else."""
    spec = FeatureSpec.default()
    again = FeatureSpec.from_mapping(spec.as_mapping())
    assert again == spec
    assert again.digest == spec.digest
    assert len(spec.digest) == 16


def test_the_digest_changes_with_anything_that_changes_features() -> None:
    """Another window, cap, order or attribute is another spec."""
    specs = [
        {"entities": [entity()]},
        {"entities": [entity(windows=["1h", "7d"])]},
        {"entities": [entity(max_events_per_key=10)]},
        {"entities": [entity(aggregates=["count", "sum"])]},
        {"entities": [entity(aggregates=["sum", "count"])]},
        {"entities": [entity()], "attributes": ["v1"]},
        {"entities": [entity()], "calendar": []},
    ]
    assert len({FeatureSpec.from_mapping(spec).digest for spec in specs}) == len(specs)


def test_a_spec_with_anonymous_attributes_and_no_terminal() -> None:
    """28 anonymous numbers pass through as columns beside the card's windows."""
    attributes = [f"V{i}" for i in range(1, 29)]
    spec = FeatureSpec.from_mapping({"entities": [entity()], "attributes": attributes})
    assert spec.names == (*spec.transaction_names, "card_count_1h", "card_count_24h")
    assert spec.transaction_names[-28:] == tuple(attributes)


def test_a_third_entity_is_one_more_table() -> None:
    """Device windows need no more than an entry."""
    device = entity(name="device", key="device_id", aggregates=["count", "distinct_cards"])
    spec = FeatureSpec.from_mapping({"entities": [*_default_entities(), device]})
    assert spec.names[-4:] == (
        "device_count_1h",
        "device_count_24h",
        "device_distinct_cards_1h",
        "device_distinct_cards_24h",
    )


def _default_entities() -> list[object]:
    entities = FeatureSpec.default().as_mapping()["entities"]
    assert isinstance(entities, list)
    return entities


def test_aggregates_choose_their_windows() -> None:
    """A table gives each aggregate the windows it is worth a column for."""
    spec = FeatureSpec.from_mapping(
        {"entities": [entity(aggregates={"count": ["24h"], "seconds_since_last": []})]}
    )
    assert spec.entities[0].names == ("card_count_24h", "card_seconds_since_last")


@pytest.mark.parametrize(
    ("features", "path"),
    [
        ([], "features"),
        ({}, "features.entities"),
        ({"entities": []}, "features.entities"),
        ({"entities": [entity()], "entitys": 1}, "features.entitys"),
        (
            {"entities": [entity(), entity(name="b", key="ip", windows=["1x"])]},
            "features.entities[1].windows[0]",
        ),
        ({"entities": [entity(windows=["0h"])]}, "features.entities[0].windows[0]"),
        ({"entities": [entity(windows=["999d"])]}, "features.entities[0].windows[0]"),
        ({"entities": [entity(windows=["24h", "1h"])]}, "features.entities[0].windows[1]"),
        ({"entities": [entity(windows=["24h", "1d"])]}, "features.entities[0].windows[1]"),
        ({"entities": [entity(windows=[])]}, "features.entities[0].windows"),
        ({"entities": [entity(windows=3600)]}, "features.entities[0].windows"),
        ({"entities": [entity(windows=[True])]}, "features.entities[0].windows[0]"),
        ({"entities": [entity(key="amount")]}, "features.entities[0].key"),
        ({"entities": [entity(name="Card!")]}, "features.entities[0].name"),
        ({"entities": [entity(aggregates=["median"])]}, "features.entities[0].aggregates[0]"),
        ({"entities": [entity(aggregates=["count", "count"])]}, "features.entities[0].aggregates"),
        ({"entities": [entity(aggregates={"std": ["7d"]})]}, "features.entities[0].aggregates.std[0]"),
        (
            {"entities": [entity(aggregates={"seconds_since_last": ["1h"]})]},
            "features.entities[0].aggregates.seconds_since_last",
        ),
        ({"entities": [entity(aggregates=[])]}, "features.entities[0].aggregates"),
        ({"entities": [entity(max_events_per_key=0)]}, "features.entities[0].max_events_per_key"),
        ({"entities": [entity(max_events_per_key=True)]}, "features.entities[0].max_events_per_key"),
        ({"entities": [entity(risk={"windows": ["7d"]})]}, "features.entities[0].risk.delay"),
        (
            {"entities": [entity(risk={"delay": "7d", "windows": ["7d"], "lag": 1})]},
            "features.entities[0].risk.lag",
        ),
        (
            {"entities": [entity(risk={"delay": "7d", "windows": ["7d"], "since_fraud": True})]},
            "features.entities[0].risk.since_fraud",
        ),
        ({"entities": [entity(), entity(key="ip")]}, "features.entities"),
        ({"entities": [entity(), entity(name="other")]}, "features.entities"),
        ({"entities": [entity()], "attributes": ["a", "a"]}, "features.attributes"),
        ({"entities": [entity()], "attributes": ["a b"]}, "features.attributes[0]"),
        ({"entities": [entity()], "attributes": ["amount"]}, "features"),
        ({"entities": [entity()], "calendar": ["moon"]}, "features.calendar[0]"),
    ],
)
def test_what_cannot_be_meant_is_refused_by_name(features: object, path: str) -> None:
    """Every wrong, missing or unknown key raises an error that starts with its path."""
    with pytest.raises(SpecError) as caught:
        FeatureSpec.from_mapping(features)
    assert caught.value.path == path
    assert str(caught.value).startswith(f"{path}: ")


def test_durations_have_one_spelling_in_names() -> None:
    """Equal durations give equal names however they were written."""
    spelled = {
        "60s": "1m",
        "3600s": "1h",
        "1d": "24h",
        "24h": "24h",
        "48h": "2d",
        "1w": "7d",
        "90m": "90m",
        "5ms": "5ms",
    }
    assert {text: format_duration(parse_duration(text)) for text in spelled} == spelled
    assert parse_duration("1h") == HOUR
