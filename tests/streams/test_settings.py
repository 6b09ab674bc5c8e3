"""Settings: precedence, refusal of what is unknown or wrong, digest, display."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from pydantic import ValidationError

from models.spec import FeatureSpec
from streams.commands.config_command import config
from streams.errors import SettingsError
from streams.kafka.connection import client_options
from streams.settings import Settings, known_keys, load

HOUR = 3_600_000


def from_text(folder: Path, text: str, environ: dict[str, str] | None = None, **flags: Any) -> Settings:
    file = folder / "fraud.toml"
    file.write_text(text, encoding="utf-8")
    return load(file, {key.replace("__", "."): value for key, value in flags.items()}, environ or {})


def test_later_sources_win(tmp_path: Path) -> None:
    """Flags win over the environment, the environment over the file, the file over the defaults."""
    text = '[worker]\nmetrics_port = 1\nbatch_rows = 1\n[time]\nallowed_lateness = "2h"\n'
    settings = from_text(
        tmp_path,
        text,
        {"FRAUD_WORKER__METRICS_PORT": "2", "FRAUD_WORKER__BATCH_ROWS": "2"},
        worker__metrics_port=3,
        broker__bootstrap=None,
    )
    assert settings.worker.metrics_port == 3
    assert settings.worker.batch_rows == 2
    assert settings.time.allowed_lateness == 2 * HOUR
    assert settings.time.dedupe_horizon == 24 * HOUR
    assert settings.broker.bootstrap == "localhost:9092"


def test_file_may_be_named_by_the_environment(tmp_path: Path) -> None:
    """FRAUD_CONFIG names the file, and a path given in the call wins over it."""
    (tmp_path / "a.toml").write_text("[policy]\nthreshold = 0.25\n")
    (tmp_path / "b.toml").write_text("[policy]\nthreshold = 0.75\n")
    environ = {"FRAUD_CONFIG": str(tmp_path / "a.toml")}
    assert load(environ=environ).policy.threshold == 0.25
    assert load(tmp_path / "b.toml", environ=environ).policy.threshold == 0.75


def test_lists_and_tables_come_from_the_environment_as_json() -> None:
    """Shadows and options are given as JSON in one variable."""
    settings = load(
        environ={"FRAUD_MODELS__SHADOWS": '[{"name": "a", "kind": "k", "options": {"depth": 3}}]'}
    )
    assert [(slot.name, slot.options) for slot in settings.models.shadows] == [("a", {"depth": 3})]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "[time]\nallowed_latenes = '1h'",
            "unknown setting time.allowed_latenes.*did you mean time.allowed_lateness",
        ),
        ("[tiem]\nx = 1", "unknown setting tiem.*did you mean time"),
        ("[models.champion]\nname = 'a'\nkind = 'k'\nsede = 1", "unknown setting models.champion.sede"),
        ("[time]\nallowed_lateness = 3", "time.allowed_lateness .*with units"),
        ("[time]\nallowed_lateness = '3'", "time.allowed_lateness .*needs units"),
        ("[time]\nallowed_lateness = true", "time.allowed_lateness .*with units"),
        ("[policy]\nthreshold = 1.5", r"policy.threshold \(.*\): should be less than or equal to 1"),
        ("[models.champion]\nname = 'a'", r"models.champion.kind \(.*\): has to be set"),
        ("[policy]\nthreshold = nan", "policy.threshold"),
        ("[policy]\nkind = 'best'", "policy.kind .*'threshold', 'budget' or 'cost'"),
        ("[policy]\nalerts_per_day = 0", "policy.alerts_per_day"),
        (
            "[policy]\nkind = 'budget'\nalerts_per_day = 3",
            r"policy.alerts_per_day \(3\) must be at least topics.partitions \(4\)",
        ),
        ("[policy]\nkind = 'cost'", "needs investigation_cost"),
        ("[policy]\ninvestigation_cost = {EUR = 500}", 'for kind "cost"'),
        ("[policy]\nkind = 'cost'\ninvestigation_cost = {EUR = 0}", "policy.investigation_cost.EUR"),
        ("[policy]\ncooldown = 60", "policy.cooldown .*with units"),
        ("[policy]\ncontrol_share = 1.0", "policy.control_share"),
        ("[policy]\ncontrol_share = 0.1", "control_share needs control_key_file"),
        ("[topics]\npartitions = 0", "topics.partitions"),
        ("[topics]\nretention = '7d'", "topics.retention must be longer than labels.maturity"),
        ("[topics]\nscores = 'fraud.alerts.v1'", "used twice: fraud.alerts.v1"),
        ("[topics]\nscores = '..'", "topics.scores .*is not a topic name"),
        ("[broker]\nbootstrap = 'a:9092,b:99999'", "'b:99999' has no port from 1 to 65535"),
        ("[broker]\nbootstrap = 'a:0'", "'a:0' has no port from 1 to 65535"),
        ("[topics]\nscores = 'a b'", "topics.scores .*'a b' is not a topic name"),
        ("[models.champion]\nname = 'x y'\nkind = 'k'", "models.champion.name .*lower-case letters"),
        (
            "[models]\nshadows = [{name='binned', kind='k'}]\nchampion = {name='binned', kind='k'}",
            "name of its own",
        ),
        (
            "[broker]\nbootstrap = 'kafka'",
            "broker.bootstrap .*'kafka' is not host:port, several separated by commas",
        ),
        ("[broker]\nbootstrap = 'a:1,b'", "broker.bootstrap"),
        ("[broker]\nsecurity = 'SASL_SSL'", "SASL needs username and password"),
        ("time = 3", "time .*valid"),
        ("[time\n", "not valid TOML"),
    ],
)
def test_mistakes_in_the_file_are_named(tmp_path: Path, text: str, message: str) -> None:
    """Every mistake is refused with its key, its place and the cure."""
    with pytest.raises(SettingsError, match=f"(?s){message}") as caught:
        from_text(tmp_path, text)
    assert "fraud.toml" in str(caught.value) or "must be" in str(caught.value)


def test_all_mistakes_are_told_at_once(tmp_path: Path) -> None:
    """Two wrong keys give two sentences."""
    with pytest.raises(SettingsError) as caught:
        from_text(tmp_path, "[policy]\nthreshold = 2\n[worker]\nbatch_rows = 0\n")
    assert len(str(caught.value).splitlines()) == 2


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("FRAUD_BROKER__BOOTSTRP", "a:1", "did you mean FRAUD_BROKER__BOOTSTRAP"),
        ("FRAUD_WORKER_METRICS_PORT", "1", "did you mean FRAUD_WORKER__METRICS_PORT"),
        ("FRAUD_X", "1", "unknown environment variable FRAUD_X"),
        ("FRAUD_WORKER__METRICS_PORT", "99999", r"worker.metrics_port \(in FRAUD_WORKER__METRICS_PORT\)"),
        ("FRAUD_MODELS__SHADOWS", "x", "write JSON in FRAUD_MODELS__SHADOWS"),
        ("FRAUD_CONFIG", "/nowhere/fraud.toml", "cannot read"),
    ],
)
def test_mistakes_in_the_environment_are_named(name: str, value: str, message: str) -> None:
    """A variable with our prefix that nobody knows is an error, like a wrong value."""
    with pytest.raises(SettingsError, match=message):
        load(environ={name: value})


def test_other_variables_are_left_alone() -> None:
    """Variables without the prefix and those of the test suite are no settings."""
    assert load(environ={"PATH": "x", "FRAUD_TEST_BROKER": "a:1", "FRAUDULENT": "1"}) == Settings()


def test_settings_never_change() -> None:
    """Assigning to a setting is an error."""
    settings = Settings()
    with pytest.raises(ValidationError):
        settings.policy.threshold = 0.1


def test_digest_covers_what_decides() -> None:
    """The digest follows features, time, labels, models and policy, and nothing of place or process."""

    def digest(**flags: object) -> str:
        return load(
            overrides={key.replace("__", "."): value for key, value in flags.items()}, environ={}
        ).digest

    plain = digest()
    assert len(plain) == 16
    assert plain == digest(worker__metrics_port=1, broker__bootstrap="kafka:1", topics__scores="x")
    assert plain == digest(time__allowed_lateness="60m")
    assert plain == digest(models__checkpoint_key_file="key")
    different = {
        digest(time__allowed_lateness="2h"),
        digest(policy__threshold=0.4),
        digest(models__publish_every="7h"),
        digest(labels__maturity="6d"),
        digest(features={"entities": []}),
    }
    assert len(different | {plain}) == 6


def test_shown_settings_load_again_and_hide_secrets(tmp_path: Path) -> None:
    """What `show` prints is TOML that gives the same settings, with the password hidden."""
    settings = from_text(
        tmp_path,
        "[models.champion]\nname='a'\nkind='k'\noptions={rate=0.5, tag='x'}\n[features]\nattributes=['V1']\n"
        "[[features.entities]]\nname='card'\nkey='card_id'\n",
    )
    assert from_text(tmp_path, settings.as_toml()) == settings
    secret = from_text(tmp_path, "[broker]\nsecurity='SASL_SSL'\nusername='u'\npassword='hunter2'")
    assert "hunter2" not in f"{secret.as_toml()}{secret.shown()}{secret!r}"
    assert client_options(secret.broker)["sasl_plain_password"] == "hunter2"


def test_every_setting_is_described() -> None:
    """Every key has a description, from which the reference is made."""
    for key, section in known_keys().items():
        assert section.model_fields[key.rpartition(".")[2]].description, key


def test_plain_connection_has_no_security() -> None:
    """Without security the clients get no credentials; with TLS they verify certificate and host name."""
    assert client_options(Settings().broker) == {
        "bootstrap_servers": "localhost:9092",
        "security_protocol": "PLAINTEXT",
    }
    secure = load(overrides={"broker.security": "SSL"}, environ={})
    assert client_options(secure.broker)["ssl_context"].check_hostname


def test_config_show_and_check(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`config show` prints what is in force, `config check` exits 1 with the key of a mistake."""
    monkeypatch.delenv("FRAUD_CONFIG", raising=False)
    file = tmp_path / "fraud.toml"
    file.write_text("[policy]\nthreshold = 0.25\n")
    runner = CliRunner()
    shown = runner.invoke(config, ["show", "--config", str(file), "--broker", "kafka:1"])
    assert shown.exit_code == 0
    assert tomllib.loads(shown.output)["policy"]["threshold"] == 0.25
    assert tomllib.loads(shown.output)["broker"]["bootstrap"] == "kafka:1"
    columns = (
        shown.output.partition(" columns:\n")[2].replace("# ", "").replace("\n", " ").strip().split(", ")
    )
    assert tuple(columns) == FeatureSpec.default().names
    as_json = runner.invoke(config, ["show", "--config", str(file), "--json"])
    assert tuple(json.loads(as_json.output)["columns"]) == FeatureSpec.default().names
    assert runner.invoke(config, ["check", "--config", str(file)]).exit_code == 0
    for text, key in (
        ("[policy]\nthreshold = 7\n", "policy.threshold"),
        ("[features]\nentitis = []\n", "features"),
        ("[models.champion]\nname = 'a'\nkind = 'nothing'\n", "nothing"),
        (
            "[models.champion]\nname = 'a'\nkind = 'logistic'\noptions = {learning_rat = 1}\n",
            "no option learning_rat; known are learning_rate, limit, prior",
        ),
        ("[models]\ncheckpoint_key_file = '/no/such/key'\n", "models.checkpoint_key_file: cannot read"),
    ):
        file.write_text(text)
        refused = runner.invoke(config, ["check", "--config", str(file)])
        assert refused.exit_code == 1
        assert key in refused.output
