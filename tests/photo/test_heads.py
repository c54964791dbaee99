"""Rendered heads: the units of a face move what their names say, and a picture depends on its seeds only."""

import numpy as np
import pytest

from gen_affect_lib.avatars.factors import ACTION_UNITS, Expression
from gen_affect_lib.errors import UserError
from gen_affect_lib.photo import heads
from gen_affect_lib.photo.heads import ARKIT, Person, Scene, arkit_units, rasterise, render_head

PERSON = Person.sample(1_000_000)


def moved(**units) -> np.ndarray:
    """Displacements of the average head's vertices, (V, 3)."""
    return (arkit_units(Expression(**units)) @ heads.heads().units).reshape(-1, 3)


def test_the_file_holds_a_head_with_the_52_units_and_a_licence():
    head = heads.heads()
    assert head.units.shape == (52, 3 * len(head.points))
    assert head.triangles.max() == len(head.points) - 1
    assert "CC0 1.0" in (heads.HEADS.parent / "LICENSE.md").read_text()
    assert heads.HEADS.stat().st_size < 500_000


def test_every_action_unit_has_units_of_arkit_that_exist():
    names = heads.heads().unit_names
    assert list(ARKIT) == [f"au{unit}" for unit in ACTION_UNITS]
    for parts in ARKIT.values():
        assert all(name in names or name + "Left" in names for name in parts)


@pytest.mark.parametrize("unit, up", [("au1", 1), ("au2", 1), ("au4", -1), ("au10", 1), ("au12", 1), ("au15", -1)])
def test_units_move_the_skin_up_or_down(unit, up):
    vertical = moved(**{unit: 1.0})[:, 1]
    assert up * vertical[np.abs(vertical).argmax()] > 0.02


def test_a_dropped_jaw_parts_the_lips_only_with_unit_25():
    def gap(**units) -> float:
        """Between the middle of the upper and the lower lip, in decimetres."""
        head = heads.heads()
        x, y, z = head.points.T
        lips = (np.abs(x) < 0.03) & (z > 1.4) & (y > 6.5) & (y < 6.7)
        middle = (y[lips].min() + y[lips].max()) / 2
        after = y + moved(**units)[:, 1]
        return float(after[lips & (y > middle)].mean() - after[lips & (y < middle)].mean())

    closed, dropped, parted = gap(), gap(au26=1.0), gap(au26=1.0, au25=1.0)
    assert abs(dropped - closed) < 0.05
    assert parted - closed > 0.15


def test_lids_narrow_the_eyes_widen_and_close_them():
    head = heads.heads()

    def visible(**units) -> int:
        """Pixels of the eyes that are seen from the front."""
        points = head.points + moved(**units)
        _, triangle, _ = rasterise((points[:, :2] - (-1.5, 8.5)) * (100, -100), points[:, 2], head.triangles, 300)
        part = head.part[head.triangles[triangle, 0]]
        return int(np.isin(part, [head.part_names.index(f"{side} eye") for side in ("left", "right")]).sum())

    plain = visible()
    assert visible(au43=1.0) < 0.1 * plain < visible(au7=1.0) < 0.95 * plain
    assert visible(au5=1.0) > 1.1 * plain


def test_gaze_turns_the_eyes_to_the_viewers_right_and_up():
    head = heads.heads()
    x, y, z = head.points.T
    eye = head.part == head.part_names.index("left eye")
    front = eye & (z > np.quantile(z[eye], 0.8))
    assert moved(gaze_x=1.0)[front, 0].mean() > 0.02
    assert moved(gaze_y=1.0)[front, 1].mean() > 0.01


def test_the_nearer_triangle_is_seen_and_a_turned_one_is_not():
    xy = np.array([[1, 9], [9, 9], [1, 1], [1, 9], [9, 9], [1, 1]], float)
    nearness = np.array([0, 0, 0, 1, 1, 1.0])
    front, back = [[0, 1, 2], [3, 4, 5]], [[0, 1, 2], [3, 5, 4]]
    for triangles, expected in ((front, 1), (back, 0)):
        pixel, triangle, weights = rasterise(xy, nearness, np.array(triangles), 10)
        assert set(triangle) == {expected}
        corners = xy[np.array(triangles)[triangle]]  # (P, 3, 2)
        at = (weights[:, :, None] * corners).sum(axis=1)
        np.testing.assert_allclose(at, np.stack([pixel % 10, pixel // 10], axis=1), atol=1e-5)


def test_a_picture_is_the_same_for_the_same_seeds_and_differs_for_others():
    smile = Expression(au12=0.8)
    first = render_head(PERSON, smile, Scene.sample(3), 64)
    assert first.shape == (64, 64, 3) and first.dtype == np.uint8
    assert (first == render_head(Person.sample(1_000_000), smile, Scene.sample(3), 64)).all()
    for person, expression, seed in ((Person.sample(4), smile, 3), (PERSON, Expression(), 3), (PERSON, smile, 4)):
        assert (first != render_head(person, expression, Scene.sample(seed), 64)).mean() > 0.001


def test_the_light_comes_from_the_lamps_side():
    sides = []
    for right in (-0.6, 0.6):
        picture = render_head(PERSON, Expression(), Scene(lamp=(right, 0.1, 0.4), ambient=0.1), 64)[20:48]
        sides.append(picture[:, 36:44].mean() - picture[:, 20:28].mean())
    assert sides[0] < -10 and sides[1] > 10


def test_a_missing_file_is_one_line(monkeypatch, tmp_path):
    monkeypatch.setattr(heads, "HEADS", tmp_path / "heads.npz")
    with pytest.raises(UserError, match="restore it"):
        heads.heads.__wrapped__()
