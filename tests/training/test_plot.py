"""Loss curves of several runs."""

import pytest
from PIL import Image

from ssd.training import plot
from ssd.training.log import CsvTracker


def test_plot_draws_runs_side_by_side(tmp_path, capsys) -> None:
    pytest.importorskip("matplotlib")
    for run in ("a", "b"):
        log = CsvTracker(tmp_path / run / "log.csv", ["8x8", "4x4"])
        log.start()
        for step in range(1, 5):
            log.log({"loss": 1.0 / step, f"loss_{4 + 4 * (step % 2)}x{4 + 4 * (step % 2)}": 1.0 / step}, step)
    plot.main([str(tmp_path / "a"), str(tmp_path / "b"), "--out", str(tmp_path / "new" / "c.png"), "--smooth", "2"])
    assert Image.open(tmp_path / "new" / "c.png").size[0] > 1000
    steps, means = plot.read_losses(tmp_path / "a", smooth=2)["loss"]
    assert steps == [2, 4]
    assert means == pytest.approx([0.75, (1 / 3 + 1 / 4) / 2], rel=1e-4)
    with pytest.raises(SystemExit):
        plot.main([str(tmp_path)])
    assert "has no log.csv" in capsys.readouterr().err
