"""What notebook 11 builds by hand is what the library computes."""

import numpy as np
import pytest

from gen_affect_lib.avatars import Expression
from gen_affect_lib.avatars.colors import SKIN, lab
from gen_affect_lib.avatars.splits import VALIDATION_SEED
from gen_affect_lib.photo import landmarker, likeness, units
from gen_affect_lib.photo.heads import Person, render_head

BUILT = ("align", "units_from_table", "ridge", "read_proportion", "skin_angle")


@pytest.fixture(scope="module")
def by_hand(definitions) -> dict:
    return definitions("11_photo", BUILT, np=np)


@pytest.fixture(scope="module")
def head() -> tuple[np.ndarray, landmarker.Face]:
    """A rendered head with a smile, and its face."""
    if not landmarker.is_installed():
        pytest.skip(landmarker.INSTALL)
    picture = render_head(Person.sample(VALIDATION_SEED + 10), Expression(au12=1.0, au25=0.6, head_yaw=0.5))
    (face,) = landmarker.FaceLandmarker.load().faces(picture)
    return picture, face


def test_points_are_laid_over_the_average_face_as_the_library_does(by_hand):
    rng = np.random.default_rng(0)
    for mirror in (1, -1):
        average, weights = rng.normal(0, (4, 5, 2), (468, 3)), rng.uniform(0, 1, 468)
        points = np.concatenate([average, rng.normal(0, 3, (10, 3))]) * (mirror, 1, 1) * 30 + rng.normal(0, 9, (478, 3))
        ours, rotation = by_hand["align"](points, average, weights)
        theirs, turned = landmarker.align(points, average, weights)
        assert np.abs(ours - theirs).max() < 1e-4 and np.abs(rotation.T - turned).max() < 1e-5
        assert np.linalg.det(rotation) == pytest.approx(1)


def test_the_table_is_the_librarys_where_no_smile_changes_it(by_hand):
    rng = np.random.default_rng(1)
    smiles = [name.startswith("mouthSmile") for name in landmarker.NAMES]
    for _ in range(5):
        blendshapes = np.where(smiles, 0.0, rng.uniform(0, 1, 52))
        ours = by_hand["units_from_table"](dict(zip(landmarker.NAMES, blendshapes.tolist())), units.TABLE)
        assert ours == pytest.approx(units.from_blendshapes(blendshapes))
    smiling = by_hand["units_from_table"](dict.fromkeys(landmarker.NAMES, 0.5), units.TABLE)
    corrected = units.from_blendshapes(np.full(52, 0.5))
    assert {unit for unit in smiling if abs(smiling[unit] - corrected[unit]) > 1e-6} <= {"au6", "au7", "au10"}


@pytest.mark.parametrize("pictures", [20, 200])  # fewer than features, and more
def test_ridge_regression_has_the_least_penalised_error(by_hand, pictures):
    rng = np.random.default_rng(2)
    x = rng.normal(3, 1, (pictures, 50))
    y = x @ rng.normal(0, 1, (50, 4)) + rng.normal(5, 1, (pictures, 4))
    weight, bias = by_hand["ridge"](x, y, 2.0)

    def error(weight, bias):
        return np.square(x @ weight.T + bias - y).sum() + 2.0 * np.square(weight).sum()

    least = error(weight, bias)
    for _ in range(20):
        assert error(weight + rng.normal(0, 1e-3, weight.shape), bias) > least
        assert error(weight, bias + rng.normal(0, 1e-3, bias.shape)) > least
    assert weight.shape == (4, 50) and bias.shape == (4,)


def test_factors_are_the_librarys(by_hand, head):
    picture, face = head
    colors = likeness.to_lab(picture)
    identity, _, _ = likeness.read_likeness(face, picture)
    changed = 0
    for name, value in likeness.proportions(face, colors).items():
        norm = likeness.PEOPLE_NORMS[name]
        blendshapes = {shape: face.blendshape(shape) for shape in norm[2]}
        factor = by_hand["read_proportion"](value, norm, blendshapes)
        changed += factor != by_hand["read_proportion"](value, (*norm[:2], {}), {})
        if name != "eye_tilt":  # which runs from -1 to 1
            assert factor == pytest.approx(getattr(identity, name), abs=1e-6), name
    assert changed >= 1, "the smile changes the width of the mouth"


def test_the_angle_gives_the_librarys_skin(by_hand, head):
    picture, face = head
    colors, points = likeness.to_lab(picture), face.landmarks[:, :2]
    places = points[likeness.CHEEKS + likeness.FOREHEAD]
    reach = 0.03 * np.linalg.norm(points[likeness.RIGHT] - points[likeness.LEFT])
    square = [(x, y) for x in (-reach, 0, reach) for y in (-reach, 0, reach)]
    angle = by_hand["skin_angle"](np.concatenate([likeness.at(colors, places + shift) for shift in square]))
    tones = [by_hand["skin_angle"](np.array([lab(tone)])) for tone in SKIN]
    skin = np.interp(-angle, -np.array(tones), np.linspace(0, 1, len(SKIN)))
    assert skin == pytest.approx(likeness.read_skin(points, colors)[0], abs=1e-3)
