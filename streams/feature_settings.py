"""The feature spec that the settings describe, and the topics that follow from it.

Apart from `streams.app`: commands that only look at topics need not wait for the learners and Faust to load.
"""

from __future__ import annotations

from models.spec import FeatureSpec
from models.spec_reading import SpecError
from streams.errors import SettingsError
from streams.settings import Settings
from streams.topics import Catalogue


def feature_spec(settings: Settings) -> FeatureSpec:
    """The feature spec of the settings.

    Raises:
        SettingsError: it cannot be used; the message names the key.
    """
    try:
        spec = FeatureSpec.from_mapping(settings.features) if settings.features else FeatureSpec.default()
    except SpecError as error:
        raise SettingsError(str(error)) from error
    if spec.entities[0].key != "card_id":
        raise SettingsError("features.entities[0].key: the first entity is the card, keyed by card_id")
    if len(spec.entities) > 2:
        raise SettingsError("features.entities: at most two entities, the card and one more")
    return spec


def catalogue_of(settings: Settings, spec: FeatureSpec) -> Catalogue:
    """The topics for these settings."""
    return Catalogue.from_settings(settings, (spec.entities[-1].name,))
