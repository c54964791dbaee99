"""A small sample of what each producer makes, by the name of the producer, as bytes that are the same on every machine.

Pictures count exactly, computed numbers rounded. Inputs and weights are fixed here, so that a sample changes only with
the producer and with those it uses. Run this file to record the digests in `digests.json`.
"""

import ast
import importlib
import json
import tempfile
import zlib
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import torch
from PIL import Image

from gen_affect_lib.avatars import Appearance, Avatar, Expression, Identity, emotions
from gen_affect_lib.avatars.landmarks import face_box, landmarks
from gen_affect_lib.avatars.pairs import PairCache, PairsConfig
from gen_affect_lib.avatars.scenes import scene
from gen_affect_lib.codec import LatentCodec
from gen_affect_lib.encoders import views
from gen_affect_lib.encoders.expression import ExpressionReading
from gen_affect_lib.encoders.pack import FacePack
from gen_affect_lib.evaluation.judges.data import Drawings
from gen_affect_lib.evaluation.sets import Plan, draw_sets
from gen_affect_lib.flow import sample, schedule
from gen_affect_lib.fullscale.faces import portrait
from gen_affect_lib.keys import Producer, digest
from gen_affect_lib.model.consistent import Consistency
from gen_affect_lib.model.fusion import IdentityExpressionFusion
from gen_affect_lib.model.mmdit import MMDiT
from gen_affect_lib.paths import ROOT
from gen_affect_lib.photo.heads import Person, Scene, render_head
from gen_affect_lib.pipeline import GenAffectPipeline
from gen_affect_lib.training import assembly, identity_data

RECORDED = Path(__file__).with_name("digests.json")
CONFIG = PairsConfig("validation", identities=2, images=2, size=16)
SMILE = Expression(au6=0.5, au12=0.75, au25=0.5, head_yaw=0.25)
LOOK = Appearance(earrings="hoop", collar="shirt", background_style="halo", head_tilt=0.5)
FACES = [
    Avatar(Identity(hair_style=hair, glasses=glasses, facial_hair=beard, skin=skin), expression, look)
    for hair, glasses, beard, skin, expression, look in (
        ("bob", "none", "none", 0.25, SMILE, Appearance()),
        ("turban", "round", "beard", 0.75, Expression(au1=1.0, au4=0.5, au15=0.75, au17=0.5), LOOK),
        ("curly", "none", "stubble", 1.0, Expression(au2=0.5, au5=1.0, au26=0.75, gaze_x=0.5), LOOK),
    )
]


def declared() -> dict[str, Producer]:
    """Every producer in the source of the library, by name."""
    found = {}
    for path in sorted((ROOT / "gen_affect_lib").rglob("*.py")):
        module = ".".join(path.relative_to(ROOT).with_suffix("").parts)
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            called = node.value.func if isinstance(node, ast.Assign) and isinstance(node.value, ast.Call) else None
            if getattr(called, "id", "") == "Producer":
                producer = getattr(importlib.import_module(module), node.targets[0].id)
                assert producer.name not in found, f"two producers are named {producer.name!r}"
                found[producer.name] = producer
    return found


def rounded(values, digits: int) -> bytes:
    """Numbers rounded to so many digits; adding 0 turns -0 into 0."""
    return (np.round(np.asarray(values, np.float64), digits) + 0).tobytes()


def coarse(images: np.ndarray) -> bytes:
    """Pictures (…, S, S, 3) as the rounded means of 4 × 4 blocks: interpolation may differ in the last bit."""
    images = np.asarray(images, np.float64)
    *rest, height, width, channels = images.shape
    blocks = images.reshape(*rest, 4, height // 4, 4, width // 4, channels)
    return rounded(blocks.mean(axis=(-4, -2)) / 2, 0)


def filled(network: torch.nn.Module) -> torch.nn.Module:
    """Weights that depend on their names and shapes alone."""
    with torch.no_grad():
        for name, weight in network.state_dict().items():
            generator = torch.Generator().manual_seed(zlib.crc32(name.encode()))
            if weight.is_floating_point():
                weight.copy_(0.2 * torch.randn(weight.shape, generator=generator))
    return network.eval()


def codec() -> LatentCodec:
    small = filled(LatentCodec(16, (8, 8, 16), (1, 1, 1), (16, 16, 8, 8), (1, 1, 1, 1)))
    small.normalize.running_var.fill_(1.0)
    return small


def generated(consistency: float | Consistency) -> bytes:
    fusion = IdentityExpressionFusion(dim=16, identity_tokens=4, condition_tokens=6, num_layers=1, num_heads=2)
    transformer = MMDiT(
        sample_size=4,
        patch_size=1,
        in_channels=16,
        num_layers=2,
        attention_head_dim=8,
        num_attention_heads=2,
        joint_attention_dim=16,
        pooled_projection_dim=16,
    )
    pipeline = GenAffectPipeline(filled(transformer), filled(fusion), codec(), prediction="x", image_size=64)
    pipeline.set_progress_bar_config(disable=True)
    identity = np.sin(np.arange(2 * 512, dtype=np.float32)).reshape(2, 512)
    settings = dict(num_inference_steps=3, identity_scale=1.5, expression_scale=2.0, consistency=consistency)
    vectors = [face.expression.to_vector() for face in FACES]
    images = pipeline(identity, vectors, generator=torch.Generator().manual_seed(0), **settings).images
    return coarse(np.stack([np.asarray(image) for image in images]))


def pairs() -> PairCache:
    return PairCache.open(CONFIG, Path(tempfile.mkdtemp()) / "pairs")


def split() -> assembly.Split:
    def read(image):  # one face, whose tokens are its mean colour
        return [SimpleNamespace(score=1.0, tokens=np.repeat(image.mean(axis=(0, 1))[None], 2, axis=0))]

    return assembly.cache_split(pairs(), codec(), SimpleNamespace(read=read, weights=()), 1)


def sets() -> bytes:
    def draw(reference, words, seed):
        return [reference // 2 + 10 * seed + len(word) for word in words]

    drawn = draw_sets(draw, Plan(people=1, words=3, seeds=2), Path(tempfile.mkdtemp()) / "sets")
    return drawn.images.tobytes()


def velocity(x: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
    return x.sin() + sigma[:, None]


def identity_picture() -> bytes:
    crops, nuisance = identity_data.draw(7, 1)
    return coarse(crops) + rounded(nuisance, 4)


def drawings() -> bytes:
    data = Drawings(7, 2, 2)
    return data.images.tobytes() + data.word.tobytes()


def reading() -> bytes:
    found = [FacePack().one(face.render(96)) for face in FACES[:2]]
    return b"".join(rounded(face.box, 0) + rounded(face.tokens[:, :16], 1) for face in found)


def sampled(factors) -> bytes:
    return rounded([factors.sample(seed).to_vector() for seed in range(8)], 4)


def scenes() -> bytes:
    three = [scene(seed, 0, 100, 96) for seed in range(3)]
    return b"".join(one.image.tobytes() + rounded(one.boxes, 2) + rounded(one.points, 2) for one in three)


def aligned_views() -> bytes:
    image, points = FACES[0].render(96), 96 * landmarks(FACES[0])
    return b"".join(coarse(views.aligned(image, points, view)) for view in views.VIEWS)


def boxes() -> bytes:
    return rounded([landmarks(face) for face in FACES], 4) + rounded([face_box(face) for face in FACES], 4)


def meaning() -> bytes:
    return rounded(ExpressionReading.of_vectors([face.expression.to_vector() for face in FACES]).representation, 3)


@torch.no_grad()
def restored() -> bytes:
    images = torch.linspace(-1, 1, 3 * 32 * 32).reshape(1, 3, 32, 32)
    latents = codec().encode(images)
    return rounded(latents, 2) + coarse(127 * (1 + codec().decode(latents).movedim(1, -1).numpy()))


def walks() -> bytes:
    noise = torch.linspace(-2, 2, 12).reshape(3, 4)
    return b"".join(
        rounded(sample(velocity, noise, schedule(5, 3.0), method), 4)
        + rounded(schedule(5, 1.0, spacing="diffusers"), 4)
        for method in ("euler", "heun")
    )


def framed() -> bytes:
    """A photograph that is wider than its portrait."""
    picture = Image.fromarray(FACES[0].render(200)).resize((300, 200))
    cut, places = portrait(picture, landmarks(FACES[0]) * (150, 100) + (20, 30), (64, 96))
    return coarse(np.asarray(cut)) + rounded(places, 3)


def plan() -> bytes:
    some = Plan(people=2, words=3, seeds=2)
    return some.references.tobytes() + repr(some.target_words).encode()


SAMPLES = {
    "emotion table": lambda: repr(list(emotions.table().values())).encode(),
    "factors": lambda: b"".join(map(sampled, (Identity, Expression, Appearance))),
    "drawing": lambda: b"".join(face.render(48).tobytes() for face in FACES),
    "landmarks": boxes,
    "scenes": scenes,
    "pairs": lambda: pairs().images.tobytes() + rounded(pairs().vectors, 4),
    "aligned views": aligned_views,
    "identity pictures": identity_picture,
    "drawings for judges": drawings,
    "expression meaning": meaning,
    "face reading": reading,
    "codec": restored,
    "latents of pairs": lambda: rounded(split().latents, 1),
    "identities of pairs": lambda: rounded(split().identities, 1),
    "prepared photographs": framed,
    "sampler": walks,
    "rendered heads": lambda: coarse(render_head(Person.sample(5), SMILE, Scene.sample(3), 48)),
    "pipeline": lambda: generated(0.0),
    "consistent attention": lambda: generated(Consistency(face_above=0.15)),
    "evaluation plan": plan,
    "generated sets": sets,
    "sets of the sharing study": sets,
    "sets of trained variants": sets,
}
# Some samples use more than the producer does, or less.
ALSO = {
    "aligned views": ("landmarks",),
    "prepared photographs": ("landmarks",),
    "face reading": ("drawing",),
    "consistent attention": ("pipeline",),
}
WITHOUT = {"pipeline": "consistent attention"}


def versions(name: str) -> dict[str, str]:
    """The versions of everything that a sample depends on, shipped weights included."""
    producers = declared()
    known = dict(producers[name].versions)
    for other in ALSO.get(name, ()):
        known |= producers[other].versions
    known.pop(WITHOUT.get(name), None)
    if name == "face reading":
        known["shipped face pack"] = "-".join(FacePack().weights)
    return known


def record() -> None:
    """Write the digests of samples whose versions have changed. Others stay: raise the version first."""
    known = json.loads(RECORDED.read_text()) if RECORDED.is_file() else {}
    for name in declared():
        if known.get(name, {}).get("versions") != versions(name):
            known[name] = {"versions": versions(name), "digest": digest(SAMPLES[name]())}
    RECORDED.write_text(json.dumps({name: known[name] for name in sorted(declared())}, indent=1) + "\n")


if __name__ == "__main__":
    record()
