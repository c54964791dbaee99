"""The 128 px model from nothing on one GPU: codec, generator, decoder. Each stage has a time limit and leaves a checkpoint.

    python draw_pool.py POOL PEOPLE PICTURES VALIDATION_PEOPLE &      # draws on while this trains
    python gpu_train.py smoke                                         # every stage for a moment: does it run, how fast?
    python gpu_train.py codec --seconds 190
    python gpu_train.py encode
    python gpu_train.py generator --seconds 380
    python gpu_train.py finish --seconds 90
Folders by environment: POOL (drawn pictures, latents), WORK (checkpoints), OUT (results).

Letters: M pictures, P people of K pictures each, B of a batch, R readings of the identity of each person.
"""
from __future__ import annotations

import argparse, copy, gc, json, math, os, sys, time
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import nn

from gen_affect_lib.codec import face_weight, picture_loss
from gen_affect_lib.encoders.batched_reading import BatchedReader, similarity
from gen_affect_lib.encoders.expression import ExpressionEncoder
from gen_affect_lib.encoders.views import SIZE, VIEWS
from gen_affect_lib.flow import RectifiedFlow, interpolate, timestep
from gen_affect_lib.model.fusion import IdentityExpressionFusion
from gen_affect_lib.model.mmdit import MMDiT
from gen_affect_lib.optim import orthogonalized
from gen_affect_lib.sharp_codec import PatchCritic, SharpCodec, critic_loss

POOL, WORK, OUT = (Path(os.environ.get(n, d)) for n, d in (("POOL", "/tmp/pool"), ("WORK", "/tmp/work"), ("OUT", "/tmp/out")))
CUDA = torch.cuda.is_available()
DEVICE = torch.device("cuda" if CUDA else "cpu")
TINY = bool(os.environ.get("TINY"))  # a rehearsal on a CPU
CODEC = dict(latent_channels=16)
TRANSFORMER = dict(sample_size=8, patch_size=1, in_channels=16, num_layers=7, attention_head_dim=32, num_attention_heads=6,
                   joint_attention_dim=192, pooled_projection_dim=192)
FUSION = dict(dim=192, num_heads=6, condition_tokens=10, num_layers=2, fusion="fused_and_exact")
CODEC_BATCH, BATCH, FINISH_BATCH = (8, 8, 8) if TINY else (128, 512, 128)
READ = 2  # pictures of each person that are read as references, at 128 and at 64 px
STARTED = time.time()
LOG: list[dict] = []


def say(**row):
    row = {"t": round(time.time() - STARTED, 1), **{k: round(v, 5) if isinstance(v, float) else v for k, v in row.items()}}
    LOG.append(row)
    print(json.dumps(row), flush=True)


def autocast():
    return torch.autocast(DEVICE.type, torch.bfloat16, enabled=CUDA, cache_enabled=False)


# --- speed: compiled parts, and a whole step as one CUDA graph --------------------------------------------------------


def compiled(module: nn.Module, on: bool) -> None:
    if on and CUDA:
        module.compile(dynamic=False)


@contextmanager
def plainly(*modules: nn.Module):
    """Without what `compiled` did: another batch size or mode would be compiled anew."""
    kept = [m._compiled_call_impl for m in modules]
    for m in modules:
        m._compiled_call_impl = None
    try:
        yield
    finally:
        for m, call in zip(modules, kept):
            m._compiled_call_impl = call


class Graphed:
    """Calls `step()` as one CUDA graph where that works, else plainly. A step must not read numbers back."""

    def __init__(self, step, on: bool = True, warmup: int = 3):
        self.step, self.graph = step, None
        begin = time.time()
        if not (on and CUDA):
            return
        try:
            side = torch.cuda.Stream()
            side.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(side):
                for _ in range(warmup):
                    step()
            torch.cuda.current_stream().wait_stream(side)
            torch.cuda.synchronize()
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph):
                step()
            self.graph = graph
        except Exception as error:  # slower, but it goes on
            say(graph_failed=repr(error)[:400])
            torch.cuda.synchronize()
        say(prepared=round(time.time() - begin, 1), graph=self.graph is not None)

    def __call__(self):
        self.step() if self.graph is None else self.graph.replay()


class Optimizer:
    """Muon for inner matrices (batched by shape) and AdamW for the rest; the rate is a tensor, so that graphs can follow it."""

    def __init__(self, module: nn.Module, muon: bool, betas=(0.9, 0.95), decay=0.01, clip=1.0):
        self.parameters, self.clip, self.decay = [p for p in module.parameters() if p.requires_grad], clip, decay
        self.rate = torch.zeros((), device=DEVICE)
        self.groups, others = {}, []
        for p in self.parameters:
            if muon and p.ndim >= 2 and min(p.shape[0], p[0].numel()) >= 64:
                self.groups.setdefault((p.shape[0], p[0].numel()), []).append(p)
            else:
                others.append(p)
        self.momenta = {s: torch.zeros(len(ps), *s, device=DEVICE) for s, ps in self.groups.items()}
        wide, flat = [p for p in others if p.ndim >= 2], [p for p in others if p.ndim < 2]
        extra = dict(capturable=True) if CUDA else {}
        self.adam = torch.optim.AdamW(
            [{"params": wide, "weight_decay": decay}, {"params": flat, "weight_decay": 0.0}],
            lr=self.rate if CUDA else 0.0, betas=betas, fused=CUDA, **extra,
        )
        for group in self.adam.param_groups:
            group["lr"] = self.rate if CUDA else 0.0  # one tensor for all

    def step(self):
        nn.utils.clip_grad_norm_(self.parameters, self.clip)
        for shape, ps in self.groups.items():
            gradient = torch.stack([p.grad.flatten(1) for p in ps])
            momentum = self.momenta[shape].lerp_(gradient, 0.05)
            ahead = gradient.lerp(momentum, 0.95)
            step = batched_orthogonalized(ahead) * (0.2 * max(shape) ** 0.5 * self.rate)
            kept = 1 - self.rate * self.decay
            for p, s in zip(ps, step.unbind(0)):
                p.data.mul_(kept).sub_(s.view_as(p))
        if not CUDA:
            for group in self.adam.param_groups:
                group["lr"] = float(self.rate)
        self.adam.step()
        for p in self.parameters:
            p.grad = None


def batched_orthogonalized(matrices: torch.Tensor, steps: int = 5) -> torch.Tensor:
    """`optim.orthogonalized` for (N, n, m)."""
    tall = matrices.shape[1] > matrices.shape[2]
    x = matrices.transpose(1, 2) if tall else matrices
    x = (x / (x.norm(dim=(1, 2), keepdim=True) + 1e-7)).to(torch.bfloat16 if CUDA else torch.float32)
    for _ in range(steps):
        gram = x @ x.transpose(1, 2)
        x = 3.4445 * x + (-4.7750 * gram + 2.0315 * gram @ gram) @ x
    return (x.transpose(1, 2) if tall else x).float()


def warm_cosine(step: int, used: float, warmup: int, low: float) -> float:
    return min(1.0, (step + 1) / warmup) * (low + (1 - low) * 0.5 * (1 + math.cos(math.pi * min(used, 1.0))))


# --- data --------------------------------------------------------------------------------------------------------------


class Pool:
    """Drawn pictures on the device, as far as they are drawn: images uint8 (M, S, S, 3), expressions (M, 48)."""

    def __init__(self, limit: int | None = None):
        begin = time.time()
        while not (POOL / "done.npy").is_file():
            time.sleep(0.2)
            if time.time() - begin > 40:
                raise SystemExit("nothing is drawn")
        self.done = np.load(POOL / "done.npy", mmap_mode="r")
        self.sources = {s: [np.load(POOL / f"{s}_{n}.npy", mmap_mode="r") for n in ("images", "shown")] for s in ("validation", "train")}
        chunk = 32
        people = {s: len(self.sources[s][1]) // self.per(s) for s in self.sources}
        self.held_out_chunks = -(-people["validation"] // chunk)
        while not self.done[: self.held_out_chunks].all():
            time.sleep(0.2)
            if time.time() - begin > 60:
                raise SystemExit("nothing is drawn")
        self.validation = [torch.from_numpy(np.array(x)).to(DEVICE) for x in self.sources["validation"]]
        self.people = min(people["train"], limit or people["train"])
        self.K = self.per("train")
        M = self.people * self.K
        self.images = torch.empty(M, 128, 128, 3, dtype=torch.uint8, device=DEVICE)
        self.shown = torch.empty(M, 48, device=DEVICE)
        self.have, self.count = 0, torch.zeros((), device=DEVICE)  # people

    @staticmethod
    def per(split):
        return json.loads((POOL / "sizes.json").read_text())[split]

    def take_in(self, most_chunks: int = 16) -> bool:
        """Copy what was drawn meanwhile; True while something is missing."""
        done = self.done[self.held_out_chunks :]
        for _ in range(most_chunks):
            if self.have >= self.people:
                return False
            if not done[self.have // 32]:
                break
            last = min(self.have + 32, self.people)
            rows = slice(self.have * self.K, last * self.K)
            for here, there in zip((self.images, self.shown), self.sources["train"]):
                here[rows].copy_(torch.from_numpy(there[rows]), non_blocking=True)
            self.have = last
        self.count.fill_(self.have)
        return self.have < self.people


def as_pictures(images: torch.Tensor) -> torch.Tensor:
    return (images.movedim(-1, 1).float() / 127.5 - 1).contiguous(memory_format=torch.channels_last)


def smaller(images: torch.Tensor) -> torch.Tensor:
    """uint8 (B, 128, 128, 3) to (B, 64, 64, 3)."""
    return F.avg_pool2d(images.movedim(-1, 1).float(), 2).round().byte().movedim(1, -1)


# --- what a decoded picture should agree in ------------------------------------------------------------------------------


class Eyes:
    """What the kit's own encoders see of pictures (B, 3, 128, 128): the expression ViT's layers, and the recognizer's
    maps of insightface's crop and of the wide view at the places of a typical face. No judge of the evaluation is used."""

    def __init__(self):
        from gen_affect_lib.encoders.pack import load_recognizer

        self.expression = ExpressionEncoder.from_pretrained()
        self.recognizer = load_recognizer().to(DEVICE).eval().requires_grad_(False)
        self.expression.vit.to(DEVICE).eval().requires_grad_(False)
        typical = np.load(Path(__file__).parent / "typical.npy") if (Path(__file__).parent / "typical.npy").is_file() else None
        five = torch.from_numpy(typical)[None].to(DEVICE)  # in shares of the side
        axis = (torch.arange(SIZE, device=DEVICE) + 0.5) / SIZE
        y, x = torch.meshgrid(axis, axis, indexing="ij")
        grids = []
        for places in VIEWS.values():
            maps = similarity(five, torch.from_numpy(places / SIZE).float().to(DEVICE))
            where = (torch.stack([x, y], 2) - maps[0, :, 2]) @ torch.linalg.inv(maps[0, :, :2]).T
            grids.append(2 * where - 1)
        self.grids = torch.stack(grids)  # (2, 112, 112, 2)

    def look(self, pictures):
        return self.expression.look(F.avg_pool2d(pictures, 2))

    def maps(self, pictures):
        """The recognizer's maps, each with root mean square 1 over its channels at each place."""
        B = len(pictures)
        views = F.grid_sample(pictures.repeat(2, 1, 1, 1), self.grids.repeat_interleave(B, 0), padding_mode="border", align_corners=False)
        x, found = self.recognizer.stem(views), []
        found.append(x)
        for stage in self.recognizer.stages:
            x = stage(x)
            found.append(x)
        return [f.float() * (f.float().square().mean(1, keepdim=True) + 1e-4).rsqrt() for f in found]

    def loss(self, decoded, true):
        with torch.no_grad(), autocast():
            seen, maps = self.look(true), self.maps(true)
        with autocast():
            expression = (self.look(decoded).float() - seen.float()).square().mean()
            others = self.maps(decoded)
        return LOOK * expression + MAPS * sum((a - b).abs().mean() for a, b in zip(others, maps)) / len(maps)


LOOK, MAPS = 2.0, 0.5


def edge_share(pictures: torch.Tensor) -> torch.Tensor:
    """Share of neighbours that differ strongly (above 0.15 of the range in brightness), of pictures in [-1, 1]: ()."""
    grey = pictures.float().mean(1) / 2
    across, down = (grey[:, :, 1:] - grey[:, :, :-1]).abs(), (grey[:, 1:] - grey[:, :-1]).abs()
    return ((across > 0.15).float().mean() + (down > 0.15).float().mean()) / 2


def save_sheet(rows: list[torch.Tensor], path: Path):
    """Rows of pictures (N, 3, S, S) in [-1, 1], one above the other."""
    import cv2

    lines = [torch.cat(list(row.float().clamp(-1, 1)), dim=2) for row in rows]  # (3, S, N S)
    sheet = ((torch.cat(lines, dim=1) + 1) * 127.5).round().byte().permute(1, 2, 0).cpu().numpy()
    cv2.imwrite(str(path), sheet[:, :, ::-1])


# --- stage 1: the codec --------------------------------------------------------------------------------------------------


def restored(codec, images: torch.Tensor) -> torch.Tensor:
    with torch.no_grad(), autocast():
        return torch.cat([codec.decode(codec.encode(as_pictures(part))).float() for part in images.split(256)])


def codec_figures(codec, pool, weight, count=1024) -> dict:
    images = pool.validation[0][:count]
    found, true = restored(codec, images), as_pictures(images)
    return dict(mse=(found - true).square().mean().item(), l1=(found - true).abs().mean().item() / 2,
                loss=picture_loss(found - true, true, weight).item(),
                face_l1=(found - true)[:, :, 35:109, 35:93].abs().mean().item() / 2,
                edges=(edge_share(found) / edge_share(true)).item())


def train_codec(seconds: float, graph=True, compile=True, save=True) -> SharpCodec:
    torch.manual_seed(0)
    codec, eyes = SharpCodec(**CODEC).to(DEVICE, memory_format=torch.channels_last).train(), Eyes()
    pool = Pool()
    while pool.have < (32 if TINY else 2048):
        pool.take_in()
        time.sleep(0.05)
    compiled(codec.encoder, compile), compiled(codec.decoder, compile)
    distance = torch.compile(picture_loss, dynamic=False) if compile and CUDA else picture_loss
    weight = face_weight(128).to(DEVICE)
    optimizer = Optimizer(codec, muon=True, betas=(0.9, 0.99))
    total = torch.zeros((), device=DEVICE)

    def step():
        index = (torch.rand(CODEC_BATCH, device=DEVICE) * pool.count * pool.K).long()
        true = as_pictures(pool.images[index])
        with autocast():
            found = codec(true)
        found = found.float()
        loss = distance(found - true, true, weight) + eyes.loss(found, true)
        loss.backward()
        optimizer.step()
        total.add_(loss.detach())

    run = Graphed(step, graph)
    begin, steps, used, last, since = time.time(), 0, 0.0, time.time(), 0
    growing = True
    while used < 1:
        optimizer.rate.fill_(3e-3 * warm_cosine(steps, used, 150, 0.01))
        run()
        steps, since = steps + 1, since + 1
        if steps % 8 == 0:
            if growing:
                growing = pool.take_in()
            if CUDA and steps % 16 == 0:
                torch.cuda.synchronize()  # or the queue runs ahead of the clock
        used = (time.time() - begin) / seconds
        if time.time() - last > 20 or used >= 1:
            mean = total.item() / since
            say(stage="codec", step=steps, loss=mean, people=pool.have, rate=since / (time.time() - last))
            total.zero_()
            last, since = time.time(), 0
            if not math.isfinite(mean):
                raise SystemExit("loss is not finite")
    for part in (codec.encoder, codec.decoder):
        part._compiled_call_impl = None
    settle(codec, pool)
    say(stage="codec", steps=steps, seconds=time.time() - begin, **codec_figures(codec, pool, weight))
    if save:
        save_codec(codec, WORK / "codec.safetensors", torch.float32)
        save_codec(codec, OUT / "codec.safetensors", torch.float16)
        images = pool.validation[0][: 4 * 24 : 4]
        found, true = restored(codec, images), as_pictures(images)
        save_sheet([x for k in range(0, 24, 8) for x in (true[k : k + 8], found[k : k + 8])], OUT / "codec_sheet.png")
        with torch.no_grad(), autocast():
            z = codec.encode(as_pictures(pool.validation[0][:1024])).float()
            noisy = [codec.decode(z[:64] + s * torch.randn_like(z[:64])).float() for s in (0.1, 0.2, 0.4)]
        true = as_pictures(pool.validation[0][:64])
        values = torch.linalg.svdvals((z - z.mean(0)).flatten(1)).square().cumsum(0)
        share = values / values[-1]
        say(stage="codec", components={str(q): int((share < q).sum()) + 1 for q in (0.5, 0.8, 0.9, 0.95, 0.99)},
            noisy_mse=[(n - true).square().mean().item() for n in noisy])
    return codec


@torch.no_grad()
def settle(codec, pool):
    """Exact means and variances of the latents with the final weights, over pictures of the pool."""
    codec.train()
    norm = codec.normalize
    norm.reset_running_stats()
    norm.momentum = None  # a plain mean over all batches
    for k in range(4 if TINY else 64):
        index = torch.randint(pool.have * pool.K, (CODEC_BATCH,), device=DEVICE)
        with autocast():
            codec.encode(as_pictures(pool.images[index]))
    norm.momentum = 0.02
    codec.eval()


def save_codec(codec, path, dtype):
    path.parent.mkdir(parents=True, exist_ok=True)
    state = {n: t.detach().to(dtype if t.is_floating_point() else t.dtype).contiguous().cpu() for n, t in codec.state_dict().items()}
    save_file(state, path)


def load_codec() -> SharpCodec:
    codec = SharpCodec(**CODEC)
    codec.load_state_dict(load_file(WORK / "codec.safetensors"))
    return codec.to(DEVICE, memory_format=torch.channels_last).eval().requires_grad_(False)


# --- stage 2: latents and readings ----------------------------------------------------------------------------------------


@torch.no_grad()
def encode():
    codec, reader, pool = load_codec(), BatchedReader(DEVICE), Pool()
    begin = time.time()
    while pool.take_in(1000):
        time.sleep(0.2)
        if time.time() - begin > 15:
            break
    say(stage="encode", people=pool.have, copied=time.time() - begin)
    kept = {}
    for name, images, shown, K, people in (
        ("validation", *pool.validation, pool.per("validation"), len(pool.validation[0]) // pool.per("validation")),
        ("train", pool.images, pool.shown, pool.K, pool.have),
    ):
        images, shown = images[: people * K], shown[: people * K]
        with autocast():
            latents = torch.cat([codec.encode(as_pictures(part)).half() for part in images.split(1024)])
        if name == "train":
            say(stage="encode", encoded=time.time() - begin, mean=latents[:4096].float().mean().item(), std=latents[:4096].float().std().item())
        asked = images.view(people, K, 128, 128, 3)[:, :READ].flatten(0, 1)
        tokens = []
        for part in asked.split(512):
            with autocast():
                tokens.append(torch.stack([reader(part)[0], reader(smaller(part))[0]], 1).half())
        tokens = torch.cat(tokens).view(people, READ * 2, 2, 512)  # (P, R, V, E): picture 0 at 128, at 64, picture 1 …
        kept |= {f"{name}_latents": latents, f"{name}_tokens": tokens, f"{name}_shown": shown}
    save_file({n: t.cpu().contiguous() for n, t in kept.items()}, POOL / "latents.safetensors")
    say(stage="encode", seconds=time.time() - begin)


class LatentPool:
    def __init__(self):
        kept = {n: t.to(DEVICE) for n, t in load_file(POOL / "latents.safetensors").items()}
        self.parts = {s: (kept[f"{s}_latents"], kept[f"{s}_tokens"], kept[f"{s}_shown"].float()) for s in ("train", "validation")}
        self.K = {s: len(p[0]) // len(p[1]) for s, p in self.parts.items()}

    def draw(self, split: str, count: int, generator=None):
        """Latents (B, C, s, s), identity (B, 2, 512) of another picture of the same person, expression (B, 48), and which."""
        latents, tokens, shown = self.parts[split]
        K, (people, R) = self.K[split], tokens.shape[:2]
        u = torch.rand(3, count, device=DEVICE, generator=generator)
        person, reading = (u[0] * people).long().clamp_max(people - 1), (u[1] * R).long().clamp_max(R - 1)
        target = (reading // 2 + 1 + (u[2] * (K - 1)).long().clamp_max(K - 2)) % K  # never the picture that was read
        index = person * K + target
        return latents[index].float(), tokens[person, reading].float(), shown[index], index


# --- stage 3: the generator -----------------------------------------------------------------------------------------------


class Networks(nn.Module):
    def __init__(self):
        super().__init__()
        self.transformer, self.condition_encoder = MMDiT(**TRANSFORMER), IdentityExpressionFusion(**FUSION)

    def forward(self, noisy, sigma, identity, shown, keep_identity=None, keep_expression=None):
        tokens, pooled = self.condition_encoder(identity, shown, keep_identity, keep_expression)
        return self.transformer(noisy, tokens, pooled, timestep(sigma))


def validation_losses(networks, pool, count=2048) -> dict:
    generator, flow = torch.Generator(DEVICE).manual_seed(0), RectifiedFlow()
    if TINY:
        count = 16
    z, identity, shown, _ = pool.draw("validation", count, generator)
    noise = torch.randn(z.shape, device=DEVICE, generator=generator)
    losses = {}
    with torch.no_grad(), autocast():
        for s in (0.2, 0.5, 0.8):
            sigma = torch.full((count,), s, device=DEVICE)
            losses[f"sigma_{s}"] = flow.loss_of(networks(interpolate(z, noise, sigma), sigma, identity, shown).float(), z, noise, sigma).mean().item()
    return losses


def train_generator(seconds: float, graph=True, compile=True, save=True, lr=1.5e-3):
    torch.manual_seed(1)
    pool, networks, flow = LatentPool(), Networks().to(DEVICE).train(), RectifiedFlow()
    say(stage="generator", parameters=sum(p.numel() for p in networks.parameters()), people=len(pool.parts["train"][1]))
    average = copy.deepcopy(networks).eval().requires_grad_(False)
    if compile:
        for block in networks.transformer.blocks:
            compiled(block, True)
        compiled(networks.condition_encoder, True)
    optimizer = Optimizer(networks, muon=os.environ.get("MUON") == "1")
    weight = face_weight(8, 3.0).to(DEVICE)
    total = torch.zeros((), device=DEVICE)
    mine, theirs = list(networks.parameters()), list(average.parameters())

    def step():
        z, identity, shown, _ = pool.draw("train", BATCH)
        sigma = torch.sigmoid(torch.randn(BATCH, device=DEVICE))
        noise = torch.randn_like(z)
        keep = torch.rand(2, BATCH, device=DEVICE) >= 0.1
        with autocast():
            output = networks(interpolate(z, noise, sigma), sigma, identity, shown, keep[0], keep[1])
        loss = flow.loss_of(output.float(), z, noise, sigma, weight).mean()
        loss.backward()
        optimizer.step()
        torch._foreach_lerp_(theirs, mine, 1 - EMA)
        total.add_(loss.detach())

    run = Graphed(step, graph)
    begin, steps, used, last, since, checked = time.time(), 0, 0.0, time.time(), 0, time.time()
    while used < 1:
        optimizer.rate.fill_(lr * warm_cosine(steps, used, 400, 0.005))
        run()
        steps, since = steps + 1, since + 1
        if steps == 500:
            torch._foreach_copy_(theirs, mine)
        if CUDA and steps % 16 == 0:
            torch.cuda.synchronize()
        used = (time.time() - begin) / seconds
        if time.time() - last > 15 or used >= 1:
            mean = total.item() / since
            say(stage="generator", step=steps, loss=mean, rate=since / (time.time() - last))
            total.zero_()
            last, since = time.time(), 0
            if not math.isfinite(mean):
                raise SystemExit("loss is not finite")
        if time.time() - checked > 75 or used >= 1:
            say(stage="generator", step=steps, **validation_losses(average, pool))
            if save:
                save_networks(average)
            checked = time.time()
    say(stage="generator", steps=steps, seconds=time.time() - begin, samples=steps * BATCH)
    return average


EMA = 0.9995


def save_networks(networks):
    state = {n: t.detach().contiguous().cpu() for n, t in networks.state_dict().items()}
    save_file(state, WORK / "generator.safetensors")
    halved = {n: t.half() if t.is_floating_point() else t for n, t in state.items()}
    parts = [{}, {}]  # two files of at most 16 MiB each
    for name in sorted(halved, key=lambda n: -halved[n].numel()):
        min(parts, key=lambda part: sum(t.nbytes for t in part.values()))[name] = halved[name]
    for number, part in enumerate(parts):
        save_file(part, OUT / f"generator_{number}.safetensors")


def load_networks() -> Networks:
    networks = Networks()
    networks.load_state_dict(load_file(WORK / "generator.safetensors"))
    return networks.to(DEVICE).eval().requires_grad_(False)


# --- stage 4: the decoder, on what the generator makes ------------------------------------------------------------------------


@torch.no_grad()
def walk(networks, x, identity, shown, sigmas, scale: float):
    """From x at sigmas[0] down to the last, with both guidance scales at `scale`."""
    keep = torch.ones(len(x), dtype=torch.bool, device=DEVICE)
    with autocast():
        tokens, pooled = networks.condition_encoder(identity, shown)
        if scale != 1:
            none = networks.condition_encoder(identity, shown, ~keep, ~keep)
            tokens, pooled = torch.cat([tokens, none[0]]), torch.cat([pooled, none[1]])
        for sigma, following in zip(sigmas[:-1], sigmas[1:]):
            twice = x.repeat(2, 1, 1, 1) if scale != 1 else x
            v = networks.transformer(twice, tokens, pooled, timestep(torch.full((len(twice),), float(sigma), device=DEVICE))).float()
            if scale != 1:
                v, u = v.chunk(2)
                v = u + scale * (v - u)
            x = x + float(following - sigma) * v
    return x


def make_pairs(networks, pool, seconds: float, count: int, batch: int = 2048):
    """Latents that the generator makes of true ones noised to sigma 0.1 to 0.6, (N, C, s, s), beside the places of the
    true pictures (N,); and whole samples from noise."""
    if TINY:
        count, batch = 16, 8
    begin, made, places, off, free, v = time.time(), [], [], [], [], 0
    rng = np.random.default_rng(0)
    while sum(map(len, made)) < count and time.time() - begin < seconds * 0.75:
        z, identity, shown, index = pool.draw("train", batch)
        s = float(rng.uniform(0.1, 0.6))
        x = interpolate(z, torch.randn_like(z), s)
        x = walk(networks, x, identity, shown, np.linspace(s, 0, max(1, math.ceil(s / 0.08)) + 1), float(rng.choice([1.0, 1.5])))
        made.append(x.half()), places.append(index), off.append((s, (x - z).square().mean().item()))
    while time.time() - begin < seconds and sum(map(len, free)) < (16 if TINY else 24576):
        z, identity, shown, index = pool.draw("train", batch)
        free.append(walk(networks, torch.randn_like(z), identity, shown, np.linspace(1, 0, 13), float(rng.choice([1.0, 1.5]))).half())
    say(stage="pairs", pairs=sum(map(len, made)), free=sum(map(len, free)), seconds=time.time() - begin,
        off=[(round(s, 2), round(e, 4)) for s, e in sorted(off)[:: max(1, len(off) // 8)]])
    return torch.cat(made), torch.cat(places), torch.cat(free)


def finish(seconds: float, graph=True, compile=True, save=True, gan_share=0.45, gan=0.1):
    """The decoder alone learns; the latents stay. First L1, edges and features; then a patch critic joins."""
    torch.manual_seed(2)
    networks, codec, eyes, pool = load_networks(), load_codec(), Eyes(), LatentPool()
    K = pool.K["train"]
    made, places, free = make_pairs(networks, pool, 4 if not save else 16, 131072)
    images = np.load(POOL / "train_images.npy", mmap_mode="r")
    used_places = places.unique()
    if not save:
        used_places = used_places[:4096]
        ok = torch.isin(places, used_places)
        made, places = made[ok], places[ok]
    begin = time.time()
    pictures = torch.empty(len(used_places), 128, 128, 3, dtype=torch.uint8, device=DEVICE)
    order = used_places.cpu().numpy()
    for k in range(0, len(order), 4096):
        pictures[k : k + 4096].copy_(torch.from_numpy(images[order[k : k + 4096]]))
    where = torch.searchsorted(used_places, places)
    truth = pool.parts["train"][0]
    say(stage="finish", pictures=len(pictures), copied=time.time() - begin)
    codec.decoder.requires_grad_(True)
    compiled(codec.decoder, compile)
    distance = torch.compile(picture_loss, dynamic=False) if compile and CUDA else picture_loss
    weight = face_weight(128).to(DEVICE)
    critic = PatchCritic().to(DEVICE, memory_format=torch.channels_last)
    total = torch.zeros(3, device=DEVICE)
    paired = FINISH_BATCH * 3 // 4

    def batch():
        pick = torch.randint(len(made), (FINISH_BATCH,), device=DEVICE)
        z = made[pick].float()
        clean = truth[places[pick]].float()
        own = torch.rand(FINISH_BATCH, 1, 1, 1, device=DEVICE) < 0.2  # now and then the true latents, for reconstruction
        level = 0.2 * torch.randn(FINISH_BATCH, 1, 1, 1, device=DEVICE).abs()
        z = torch.where(own, clean + level * torch.randn_like(z), z)
        return z, as_pictures(pictures[where[pick]])

    def plain():
        z, true = batch()
        with autocast():
            found = codec.decode(z)
        found = found.float()
        loss = distance(found - true, true, weight) + eyes.loss(found, true)
        loss.backward()
        optimizer.step()
        total[0].add_(loss.detach())

    strength, critic_optimizer = torch.zeros((), device=DEVICE), Optimizer(critic, muon=False, betas=(0.5, 0.99), decay=0.0, clip=10.0)
    critic_optimizer.rate.fill_(5e-4)

    def cut(x):
        """124 x 124 pixels from a random place, so that the critic's strides meet no grid."""
        rows = (torch.rand(2, device=DEVICE) * 5).long()[:, None] + torch.arange(124, device=DEVICE)
        return x.index_select(2, rows[0]).index_select(3, rows[1])

    def adversarial():
        z, true = batch()
        z = torch.cat([z[:paired], free[torch.randint(len(free), (FINISH_BATCH - paired,), device=DEVICE)].float()])
        with autocast():
            found = codec.decode(z)
        found = found.float()
        leaf = found.detach().requires_grad_(True)
        with autocast():
            fooled = -critic(cut(leaf)).float().mean()
        (against,) = torch.autograd.grad(fooled, leaf)
        half = leaf[:paired]
        loss = distance(half - true[:paired], true[:paired], weight) + eyes.loss(half, true[:paired])
        (gradient,) = torch.autograd.grad(loss, leaf)
        size = gradient.norm() / (against.norm() + 1e-8)
        found.backward(gradient + strength * size * against)
        optimizer.step()
        with autocast():
            wrong = critic_loss(critic, cut(true), cut(leaf.detach()))
        wrong.float().backward()
        critic_optimizer.step()
        total[0].add_(loss.detach()), total[1].add_(wrong.detach().float())

    for phase, step, share, rate in (("plain", plain, 1 - gan_share, 1.2e-3), ("adversarial", adversarial, gan_share, 5e-4)):
        optimizer = Optimizer(codec.decoder, muon=True, betas=(0.9, 0.99))
        run = Graphed(step, graph)
        begin, steps, used, last, since = time.time(), 0, 0.0, time.time(), 0
        while used < 1:
            optimizer.rate.fill_(rate * warm_cosine(steps, used, 100, 0.01))
            strength.fill_(gan * min(1.0, max(0.0, (used - 0.1) / 0.15)))
            run()
            steps, since = steps + 1, since + 1
            if CUDA and steps % 16 == 0:
                torch.cuda.synchronize()
            used = (time.time() - begin) / (seconds * share)
            if time.time() - last > 12 or used >= 1:
                row = (total / since).tolist()
                say(stage=phase, step=steps, loss=row[0], critic=row[1], rate=since / (time.time() - last))
                total.zero_()
                last, since = time.time(), 0
                if not math.isfinite(row[0]):
                    return
        with plainly(codec.decoder):
            report(codec, networks, pool, weight, phase, save)


def report(codec, networks, pool, weight, phase, save):
    codec.eval()
    images = torch.from_numpy(np.array(np.load(POOL / "validation_images.npy", mmap_mode="r")[:256])).to(DEVICE)
    true = as_pictures(images)
    latents, tokens, shown = (x[: 256 if n != 1 else 64] for n, x in enumerate(pool.parts["validation"]))
    identity = tokens[:, 1].float().repeat_interleave(4, 0)  # of picture 0, read at 64 px
    if TINY:
        true, latents, shown, identity = true[:16], latents[:16], shown[:16], identity[:16]
    torch.manual_seed(3)
    own = walk(networks, torch.randn_like(latents, dtype=torch.float32), identity, shown, np.linspace(1, 0, 21), 1.5)
    with torch.no_grad(), autocast():
        found, made = codec.decode(latents.float()).float(), codec.decode(own).float()
    say(stage=phase, reconstructed_mse=(found - true).square().mean().item(), edges_reconstructed=(edge_share(found) / edge_share(true)).item(),
        edges_generated=(edge_share(made) / edge_share(true)).item())
    if save:
        state = {n: t.detach().half().contiguous().cpu() for n, t in codec.decoder.state_dict().items()}
        save_file(state, OUT / f"decoder_{phase}.safetensors")
        if phase == "adversarial":
            save_sheet([x for k in range(0, min(32, len(true)), 8) for x in (true[k : k + 8], made[k : k + 8])], OUT / "generated_sheet.png")


# --- all --------------------------------------------------------------------------------------------------------------------


def guarded(name, call):
    begin = time.time()
    gc.collect()
    if CUDA:
        torch.cuda.empty_cache()
    try:
        call()
        say(done=name, seconds=time.time() - begin)
        return True
    except Exception as error:
        import traceback

        traceback.print_exc()
        say(failed=name, error=repr(error)[:300])
        return False


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("stages", nargs="+")
    for name, seconds in (("codec", 190), ("generator", 380), ("finish", 90)):
        parser.add_argument(f"--{name}", type=float, default=seconds)
    parser.add_argument("--no-graph", action="store_true")
    parser.add_argument("--no-compile", action="store_true")
    given = parser.parse_args()
    WORK.mkdir(parents=True, exist_ok=True), OUT.mkdir(parents=True, exist_ok=True)
    if CUDA:
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
        torch.backends.cudnn.benchmark = True
        say(gpu=torch.cuda.get_device_name(), torch=torch.__version__, cores=os.cpu_count())
    fast = dict(graph=not given.no_graph, compile=not given.no_compile)
    try:
        for stage in given.stages:
            if stage == "smoke":
                s = 1 if TINY else 3
                guarded("smoke codec", lambda: train_codec(s, **fast))
                guarded("smoke encode", encode_some)
                guarded("smoke generator", lambda: save_networks(train_generator(s, save=False, **fast)))
                guarded("smoke finish", lambda: finish(s, save=False, **fast))
            elif stage == "codec":
                if not guarded("codec", lambda: train_codec(given.codec, **fast)):
                    guarded("codec, plainly", lambda: train_codec(given.codec, graph=False, compile=False))
            elif stage == "encode":
                guarded("encode", encode)
            elif stage == "generator":
                if not guarded("generator", lambda: train_generator(given.generator, **fast)):
                    guarded("generator, plainly", lambda: train_generator(max(60, given.generator - 60), graph=False, compile=False))
            elif stage == "finish":
                if not guarded("finish", lambda: finish(given.finish, **fast)):
                    guarded("finish, plainly", lambda: finish(max(20, given.finish - 40), graph=False, compile=False))
            else:
                raise SystemExit(f"no stage {stage}")
            gc.collect()
            if CUDA:
                torch.cuda.empty_cache()
                say(after=stage, gpu_gb=torch.cuda.max_memory_allocated() / 2**30)
    finally:
        with open(OUT / "log.jsonl", "a") as file:
            file.writelines(json.dumps(row) + "\n" for row in LOG)


def encode_some():
    """`encode` of what little is drawn when the smoke test runs."""
    Pool.__init__.__defaults__ = (96 if TINY else 4096,)
    try:
        encode()
    finally:
        Pool.__init__.__defaults__ = (None,)


if __name__ == "__main__":
    main()
