"""What the command line takes before it does anything."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from streams.cli import main


@pytest.mark.parametrize("number", ["nan", "inf", "-inf"])
@pytest.mark.parametrize(
    "command",
    [
        "demo --rate",
        "traffic --rate",
        "replay FILE --rate",
        "replay FILE --speed",
        "models rollback --wait",
        "models canary m --percent",
    ],
)
def test_a_number_is_finite(command: str, number: str, tmp_path: Path) -> None:
    """NaN passes every comparison with a limit, and infinity never comes."""
    history = tmp_path / "history.csv"
    history.write_text("transaction_id\n")
    arguments = [*command.replace("FILE", str(history)).split(), number]
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 2
    assert "not a finite number" in result.output or "not in the range" in result.output


def test_the_broker_listens_where_the_other_commands_look(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the settings file, by `--broker`, and by `--port` in any case."""
    ports: list[int] = []

    def listen(port: int, **_: object) -> int:
        ports.append(port)
        return 0

    monkeypatch.setattr("streams.kafka.broker.run_in_foreground", listen)
    monkeypatch.delenv("FRAUD_CONFIG", raising=False)
    monkeypatch.delenv("FRAUD_BROKER__BOOTSTRAP", raising=False)
    settings = tmp_path / "fraud.toml"
    settings.write_text('[broker]\nbootstrap = "localhost:19092,elsewhere:1"\n')
    for arguments in (
        [],
        ["--config", str(settings)],
        ["--config", str(settings), "--broker", "127.0.0.1:29092"],
        ["--config", str(settings), "--port", "0"],
    ):
        assert CliRunner().invoke(main, ["broker", *arguments]).exit_code == 0
    assert ports == [9092, 19092, 29092, 0]
