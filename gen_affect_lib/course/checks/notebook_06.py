"""The exercises of notebook 06: words by Bayes' rule, a Vision Transformer, and a confusion matrix."""

from __future__ import annotations

import math
from types import SimpleNamespace

import numpy as np
import torch
from torch import Tensor, nn
from transformers.models.vit.modeling_vit import ViTEmbeddings

from gen_affect_lib.course.checks import Exercise, Wrong, check_choice, check_number, compare, compare_modules
from gen_affect_lib.course.checks.answer import is_class
from gen_affect_lib.course.checks.probes import fresh_parameters, kept_weights
from gen_affect_lib.encoders import affect
from gen_affect_lib.evaluation.metrics.expression import concordance

# --- 6.1 log_likelihoods ---------------------------------------------------------------------------------------------


def _terms(vectors: np.ndarray, spread: float = 2 * affect.SPREAD**2) -> np.ndarray:
    """The exponents (M, S, W + 1): one per strength and word, and last the neutral face."""
    faces = np.concatenate([affect.word_vectors(), np.zeros((1, 21))])
    shown = affect.STRENGTHS[:, None, None] * faces
    return -((vectors[:, None, None] - shown) ** 2).sum(axis=-1) / spread


def _log_mean(terms: np.ndarray) -> np.ndarray:
    return np.logaddexp.reduce(terms, axis=1) - math.log(terms.shape[1])


def _test_log_likelihoods(answer) -> None:
    rng = np.random.default_rng(0)
    shown = affect.word_vectors()[[12, 40, 77, 130]] * np.array([0.6, 1.0, 1.3, 0.2])[:, None]
    cases = [
        (rng.normal(0, 0.3, (5, 21)),),
        (shown,),
        (np.zeros((1, 21)),),
        (np.stack([np.full(21, 3.0), -4 * shown[0]]),),
    ]

    def naive(vectors):
        with np.errstate(divide="ignore"):
            return np.log(np.exp(_terms(vectors)).mean(axis=1))

    def hidden(tiny, join, late):
        """With a small constant that keeps the logarithm finite; late: log 6 is subtracted at the end."""

        def mistake(vectors):
            exps = np.exp(_terms(vectors)).sum(axis=1)
            return np.log(join(exps, tiny)) - math.log(6) if late else np.log(join(exps / 6, tiny))

        return mistake

    def known(vectors):
        with np.errstate(divide="ignore"):
            return np.log(affect.posterior(vectors))

    def shares_of(vectors):
        likelihood = _log_mean(_terms(vectors))
        return likelihood - np.logaddexp.reduce(likelihood, axis=1, keepdims=True)

    hides = (
        "a small constant in the logarithm hides everything below it: 1e-300 hides −1500 behind −691, so all words "
        "have the same value. `np.logaddexp` computes the logarithm of a sum of exps from logarithms."
    )
    posterior = "are the probabilities p(w | x), already divided by their sum. Return log p(x | w), the step before."
    tiny_numbers = (
        1e-300,
        1e-200,
        1e-100,
        1e-50,
        1e-30,
        1e-20,
        1e-16,
        1e-15,
        1e-12,
        1e-10,
        1e-9,
        1e-8,
        1e-6,
        np.finfo(float).tiny,
        np.finfo(float).eps,
    )
    compare(
        answer,
        affect.log_likelihoods,
        *cases,
        tolerance=1e-6,
        mistakes=[
            (
                "right for faces that are near a word. For a face far from all words each exp is 0 in floating "
                "point, and its logarithm −∞. `np.logaddexp` computes the logarithm of a sum of exps from "
                "logarithms.",
                naive,
            ),
            (
                "the logarithms were averaged. The formula averages the exps over the strengths and then takes the "
                "logarithm.",
                lambda vectors: _terms(vectors).mean(axis=1),
            ),
            (
                "only the best strength counts here. The formula averages over all of them.",
                lambda vectors: _terms(vectors).max(axis=1),
            ),
            (
                "the neutral face is missing: there are 136 columns, and the last is a word whose 21 numbers are 0.",
                lambda vectors: _log_mean(_terms(vectors))[:, :-1],
            ),
            (
                "the neutral face is the first column, and should be the last.",
                lambda vectors: np.roll(_log_mean(_terms(vectors)), 1, axis=1),
            ),
            (
                "all values are too large by log 6: the factor 1/S is missing. (The probabilities would be the same. "
                "Why?)",
                lambda vectors: np.logaddexp.reduce(_terms(vectors), axis=1),
            ),
            (
                "the exponent divides by σ², and should divide by 2σ².",
                lambda vectors: _log_mean(_terms(vectors, affect.SPREAD**2)),
            ),
            (
                "the exponent divides by 2σ, and should divide by 2σ²: σ = 0.25 is squared.",
                lambda vectors: _log_mean(_terms(vectors, 2 * affect.SPREAD)),
            ),
            (
                "the exponent has lost its minus: the further a word is from the face, the *lower* its likelihood "
                "must be.",
                lambda vectors: _log_mean(-_terms(vectors)),
            ),
            *(
                (hides, hidden(tiny, join, late))
                for tiny in tiny_numbers
                for join in (np.add, np.maximum)
                for late in (False, True)
            ),
            (f"these {posterior}", affect.posterior),
            (f"these {posterior}", shares_of),
            (f"these {posterior}", known),
            (
                "the exponent contains the distance itself, which should be squared.",
                lambda vectors: _log_mean(-np.sqrt(-_terms(vectors, 1.0)) / (2 * affect.SPREAD**2)),
            ),
            (
                "each face is compared with the word at full strength only: use all six strengths.",
                lambda vectors: (
                    -((vectors[:, None] - np.concatenate([affect.word_vectors(), np.zeros((1, 21))])) ** 2).sum(axis=-1)
                    / (2 * affect.SPREAD**2)
                ),
            ),
        ],
    )


check_log_likelihoods = Exercise(
    "6.1",
    "log_likelihoods",
    "The likelihood of each word",
    "implement",
    difficulty=3,
    minutes=20,
    points=3,
    purpose="One formula gives the words, valence and arousal, and the targets on which the network is trained.",
    reference=affect.log_likelihoods,
    test=_test_log_likelihoods,
    hints=(
        "Make an array (6, 136, 21) of all words at all strengths, the squared distances (M, 6, 136) by broadcasting, "
        "and from them the exponents. Then compute the logarithm of the mean of the exps over the second axis. The "
        "exponents go down to about −1000.",
        "`np.logaddexp.reduce(exponents, axis=1)` is the logarithm of the sum of exps, and a mean is a sum divided "
        "by 6, so subtract log 6.",
    ),
)

# --- 6.2 terror_shown_weakly -----------------------------------------------------------------------------------------


def _test_terror_shown_weakly(answer) -> None:
    check_choice(
        answer,
        "fear",
        {
            "terror": "it has the direction of *terror*, but in the model nobody shows terror weaker than 0.6. Which "
            "word is nearer than 0.6 times *terror*?",
            "neutral": "at 0.4 the vector is still far from zero, since *terror* has many strong units. The neutral "
            "face is most probable only below about 0.25.",
            "joy": "*joy* has other units: the vector becomes shorter, but its direction does not turn.",
        },
    )


check_terror_shown_weakly = Exercise(
    "6.2",
    "terror_shown_weakly",
    "A little terror",
    "predict",
    difficulty=2,
    minutes=5,
    points=1,
    purpose="The most probable word depends on the prior: here, on how weakly a word may be shown.",
    reference=lambda: "fear",
    test=_test_terror_shown_weakly,
    hints=(
        "The formula has each word at strengths from 0.6 to 1.1. Which word, at one of these strengths, is nearest to "
        "0.4 times *terror*?",
        "There is a milder word with almost the same units.",
    ),
)

# --- 6.3 Attention ---------------------------------------------------------------------------------------------------


def _attention(axis: int = 3, merged: bool = True, scale: str = "head") -> type:
    """The reference, or with other arguments a class with one mistake."""

    class Attention(nn.Module):
        def __init__(self, dim, heads):
            super().__init__()
            self.heads = heads
            self.q_proj, self.k_proj, self.v_proj, self.o_proj = (nn.Linear(dim, dim) for _ in range(4))

        def forward(self, x: Tensor) -> Tensor:
            q, k, v = (
                p(x).unflatten(2, (self.heads, -1)).transpose(1, 2) for p in (self.q_proj, self.k_proj, self.v_proj)
            )  # (B, H, T, D / H)
            size = {"head": q.shape[-1], "all": x.shape[-1], "none": 1}[scale]
            self.weights = (q @ k.transpose(2, 3) / math.sqrt(size)).softmax(dim=axis)  # (B, H, T, T)
            taken = self.weights @ v
            return self.o_proj(taken.transpose(1, 2).flatten(2) if merged else taken.reshape(x.shape))

    return Attention


Attention = _attention()


def _test_attention(answer) -> None:
    if not is_class(answer):
        raise Wrong("`Attention` should be a class.")
    compare_modules(
        answer,
        Attention,
        dict(dim=24, heads=3),
        (torch.randn(2, 5, 24),),
        (torch.randn(1, 7, 24),),
        mistakes=[
            ("both faults are still there.", _attention(axis=2, merged=False)),
            (
                "the heads are merged correctly now. The softmax is wrong: the weights with which one token "
                "attends to all tokens, a *row* of the (T, T) matrix, must add up to 1.",
                _attention(axis=2),
            ),
            (
                "the softmax is right now. But (B, H, T, D / H) is only reshaped to (B, T, D), so a token gets "
                "numbers of one head and several tokens: transpose to (B, T, H, D / H) first.",
                _attention(merged=False),
            ),
            (
                "the softmax is over the heads. It should be over the keys, the last axis.",
                _attention(axis=1),
            ),
            ("the scale is gone: divide by √(D / H), the root of the size of a head.", _attention(scale="none")),
            (
                "the scale uses the whole width D. A score is a sum over one head, D / H numbers.",
                _attention(scale="all"),
            ),
        ],
    )
    kept = kept_weights(answer)(dict(dim=24, heads=3), torch.randn(2, 5, 24))
    if not isinstance(kept, Tensor) or kept.shape != (2, 3, 5, 5):
        raise Wrong("the outputs are right, but the weights are not kept: section 8 uses `self.weights`, (B, H, T, T).")
    if not torch.allclose(kept.sum(dim=-1), torch.ones(2, 3, 5), atol=1e-5):
        raise Wrong("the outputs are right, but the numbers in `self.weights` are not the weights after the softmax.")


check_Attention = Exercise(
    "6.3",
    "Attention",
    "Right shapes, two faults",
    "repair",
    difficulty=2,
    minutes=10,
    points=2,
    purpose="Neither fault raises an error, and a network with both still trains, only worse: such mistakes live "
    "for years.",
    reference=Attention,
    test=_test_attention,
    hints=(
        "Write the letters of all four axes beside each line. Over which axis must the weights add up to 1? Which "
        "two axes are merged to D?",
        "`softmax(dim=-1)` normalizes over the keys. Before H and D / H can be flattened, T has to be in front of H.",
    ),
)

# --- 6.4 Embeddings --------------------------------------------------------------------------------------------------


class _Patches(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.projection = nn.Conv2d(3, config.hidden_size, config.patch_size, stride=config.patch_size)

    def forward(self, pixels):
        return self.projection(pixels).flatten(2).transpose(1, 2)


def _embeddings(put) -> type:
    """A class with the right parameters; `put` makes the tokens from the class token (B, 1, D), patches (B, N, D) and
    position embeddings (1, 1 + N, D)."""

    class Embeddings(nn.Module):
        def __init__(self, config):
            super().__init__()
            count = (config.image_size // config.patch_size) ** 2
            self.patch_embeddings = _Patches(config)
            self.cls_token = nn.Parameter(torch.zeros(1, 1, config.hidden_size))
            self.position_embeddings = nn.Parameter(torch.zeros(1, 1 + count, config.hidden_size))

        def forward(self, pixels):
            return put(
                self.cls_token.expand(len(pixels), -1, -1), self.patch_embeddings(pixels), self.position_embeddings
            )

    return Embeddings


def _test_embeddings(answer) -> None:
    if not is_class(answer):
        raise Wrong("`Embeddings` should be a class.")

    def config(side):
        return SimpleNamespace(image_size=side, patch_size=4, hidden_size=12, num_channels=3, hidden_dropout_prob=0.0)

    mistakes = [
        (words, _embeddings(put))
        for words, put in (
            (
                "the class token is last. It must be the first token, since the head reads `[:, 0]`.",
                lambda first, patches, places: torch.cat([patches, first], dim=1) + places,
            ),
            (
                "the class token and its position embedding are last: both come first.",
                lambda first, patches, places: torch.cat([patches + places[:, 1:], first + places[:, :1]], dim=1),
            ),
            (
                "the position embeddings are missing: without them the network cannot tell a brow from a chin.",
                lambda first, patches, places: torch.cat([first, patches], dim=1),
            ),
            (
                "the class token has no position embedding: all 1 + N tokens get one.",
                lambda first, patches, places: torch.cat([first, patches + places[:, 1:]], dim=1),
            ),
            (
                "the position embeddings are shifted by one: the first belongs to the class token, the second to "
                "the first patch.",
                lambda first, patches, places: torch.cat([first + places[:, -1:], patches + places[:, :-1]], dim=1),
            ),
            (
                "the position embeddings are multiplied, and should be added.",
                lambda first, patches, places: torch.cat([first, patches], dim=1) * places,
            ),
            (
                "the class token is missing: N patches went in, 1 + N tokens come out.",
                lambda first, patches, places: patches + places[:, 1:],
            ),
        )
    ]
    # Two sizes, so the number of patches cannot be a constant.
    for side, count in ((8, 3), (12, 1)):
        compare_modules(
            answer, ViTEmbeddings, dict(config=config(side)), (torch.randn(count, 3, side, side),), mistakes=mistakes
        )
    fresh = fresh_parameters(answer)(dict(config=config(8)))
    if fresh["cls_token"].any() or fresh["position_embeddings"].any():
        raise Wrong(
            "the outputs are right, but the class token and the position embeddings should start at zeros: "
            "`nn.Parameter(torch.zeros(…))`."
        )


check_Embeddings = Exercise(
    "6.4",
    "Embeddings",
    "A token that belongs to no patch",
    "implement",
    difficulty=2,
    minutes=15,
    points=2,
    purpose="The network's output is computed from one token alone, the class token. This class adds it.",
    reference=ViTEmbeddings,
    test=_test_embeddings,
    hints=(
        "There are (image_size / patch_size)² patches. `cls_token.expand(B, -1, -1)` gives every picture the same "
        "token, without a copy.",
        "`torch.cat([…, …], dim=1)` puts the class token before the patches, (B, 1 + N, D); the position "
        "embeddings (1, 1 + N, D) are added to all of them.",
    ),
)

# --- 6.5 concordance -------------------------------------------------------------------------------------------------


def _agreement(read, true, *, factor=2.0, means=True, squared=True, spreads="variances", correction=0) -> float:
    """The concordance coefficient with one thing changed."""
    read, true = np.asarray(read, np.float64), np.asarray(true, np.float64)
    covariance = ((read - read.mean()) * (true - true.mean())).mean()
    apart = read.mean() - true.mean()
    apart = apart**2 if squared else apart
    a, b = read.var(ddof=correction), true.var(ddof=correction)
    below = {"variances": a + b, "product": 2 * np.sqrt(a * b), "spreads": np.sqrt(a) + np.sqrt(b)}[spreads]
    return float(factor * covariance / (below + (apart if means else 0.0)))


def _test_concordance(answer) -> None:
    rng = np.random.default_rng(5)
    true = rng.uniform(-1, 1, 9)
    cases = [
        (true, true),
        (0.5 * true + 0.3, true),
        (true + rng.normal(0, 0.4, 9) - 0.2, true),
        (-true, true),
        (rng.normal(0, 1, 200), rng.normal(1, 2, 200)),
    ]

    def mistaken(**change):
        return lambda read, true: _agreement(read, true, **change)

    compare(
        answer,
        concordance,
        *cases,
        tolerance=1e-9,
        mistakes=[
            (
                "this is Pearson's correlation: a reader that is always half as large, or always 0.3 too high, gets 1.",
                lambda read, true: float(np.corrcoef(read, true)[0, 1]),
            ),
            ("the squared difference of the means is missing below.", mistaken(means=False)),
            ("the difference of the means is not squared.", mistaken(squared=False)),
            ("the factor 2 is missing: for equal numbers the result must be 1.", mistaken(factor=1.0)),
            (
                "there are standard deviations below, and there should be variances.",
                mistaken(spreads="spreads"),
            ),
            (
                "the variances below are estimates, with M − 1, and the covariance above is a mean, with M: take means "
                "in both.",
                mistaken(correction=1),
            ),
            (
                "the product of the standard deviations is below; concordance has the sum of the variances.",
                mistaken(spreads="product"),
            ),
        ],
    )


check_concordance = Exercise(
    "6.5",
    "concordance",
    "Agreement, not correlation",
    "implement",
    difficulty=2,
    minutes=10,
    points=2,
    purpose="A correlation does not fall if all outputs are too weak; this coefficient does.",
    reference=concordance,
    test=_test_concordance,
    hints=(
        "Three means: of each array, and of the product of the deviations. For variances `np.var` divides by M, as the "
        "mean does.",
        "`2 * ((read - read.mean()) * (true - true.mean())).mean() / (read.var() + true.var() + (read.mean() - "
        "true.mean()) ** 2)`.",
    ),
)

# --- 6.6 confusion_table ---------------------------------------------------------------------------------------------


def confusion_table(shown: np.ndarray, read: np.ndarray, count: int) -> np.ndarray:
    """(count, count): of the faces that show class i, the share read as class j; zeros for a class never shown."""
    table = _counts(shown, read, count)
    return table / table.sum(axis=1, keepdims=True).clip(1)


def _counts(shown: np.ndarray, read: np.ndarray, count: int) -> np.ndarray:
    return np.bincount(shown * count + read, minlength=count**2).reshape(count, count).astype(float)


def _test_confusion_table(answer) -> None:
    rng = np.random.default_rng(0)
    shown = rng.integers(0, 5, 80)
    read = np.where(rng.random(80) < 0.5, shown, rng.integers(0, 6, 80))
    cases = [
        (shown, read, 6),
        (np.array([0, 0, 0, 1, 2, 2]), np.array([0, 0, 1, 2, 2, 2]), 3),
        (np.array([2, 0, 2]), np.array([0, 0, 2]), 4),
    ]

    def quiet(table, sums):
        with np.errstate(divide="ignore", invalid="ignore"):
            return table / sums

    def each_once(shown, read, count):
        table = np.zeros((count, count))
        table[shown, read] += 1
        return table / table.sum(axis=1, keepdims=True).clip(1)

    def divided_along_the_row(shown, read, count, least=1):
        table = _counts(shown, read, count)
        return quiet(table, table.sum(axis=1).clip(least))

    crossed = (
        "the sums are right, but each divides a column: `.sum(axis=1)` has the shape (count,), which NumPy "
        "broadcasts along the rows. With `keepdims=True` it is (count, 1), one sum per row."
    )
    compare(
        answer,
        confusion_table,
        *cases,
        mistakes=[
            (
                "each cell was counted once at most. `table[shown, read] += 1` reads all cells first and then "
                "writes them, so a pair of classes that occurs ten times adds 1. Use `np.add.at`, or a loop.",
                each_once,
            ),
            (
                "rows and columns are swapped: a row is a class that was shown, a column one that was read.",
                lambda shown, read, count: confusion_table(shown, read, count).T,
            ),
            (
                "each column adds up to 1. Divide by the sums of the rows: what share of the faces that *show* a "
                "class is read as each class?",
                lambda shown, read, count: (lambda table: table / table.sum(axis=0, keepdims=True).clip(1))(
                    _counts(shown, read, count)
                ),
            ),
            (crossed, divided_along_the_row),
            (crossed, lambda shown, read, count: divided_along_the_row(shown, read, count, least=0)),
            (
                "rows and columns are swapped, and so are their sums: count at [shown, read] and divide by the "
                "sums of the rows.",
                lambda shown, read, count: confusion_table(read, shown, count),
            ),
            ("these are the numbers of faces. Divide each row by its sum.", _counts),
            (
                "the whole table adds up to 1, but each row should.",
                lambda shown, read, count: _counts(shown, read, count) / len(shown),
            ),
            (
                "a class that is never shown gives 0/0. Its row should hold zeros.",
                lambda shown, read, count: (lambda table: quiet(table, table.sum(axis=1, keepdims=True)))(
                    _counts(shown, read, count)
                ),
            ),
        ],
    )


check_confusion_table = Exercise(
    "6.6",
    "confusion_table",
    "The confusion table",
    "implement",
    difficulty=2,
    minutes=10,
    points=2,
    purpose="One number says how often a reader errs; the table says where, and whom it concerns.",
    reference=confusion_table,
    test=_test_confusion_table,
    hints=(
        "First count, then divide. A class that is never shown must not give 0/0.",
        "`np.add.at(table, (shown, read), 1)` counts every face. `.sum(axis=1, keepdims=True)` has one sum for "
        "each row; `.clip(1)` keeps it from being 0.",
    ),
)

# --- 6.7 always_sadness ----------------------------------------------------------------------------------------------


def _test_always_sadness(answer) -> None:
    check_number(
        answer,
        1 / 6,
        within=0.004,
        wrong=[
            (
                37 / 135,
                "that is the accuracy over all faces: 37 of the 135 words belong to *sadness*. In the mean of the "
                "diagonal each family has the same weight, however many words it has.",
            ),
            *(
                (number, "the number is right, but in per cent: give a share, from 0 to 1.")
                for number in (16.6, 16.66, 16.67, 16.7, 17.0)
            ),
            (1.0, "that is one cell of the diagonal, *sadness* read as *sadness*. What are the five others?"),
            (0.0, "one of the six cells is not 0: all faces of *sadness* are read correctly."),
            (1 / 135, "that would be the chance for 135 classes. The table has six rows."),
            (1 / 25, "that would be the chance for 25 classes. The table has six rows."),
        ],
    )


check_always_sadness = Exercise(
    "6.7",
    "always_sadness",
    "The baseline that always says sadness",
    "predict",
    difficulty=2,
    minutes=5,
    points=1,
    purpose="A score has to be compared with that of a baseline which ignores the picture, and that depends on how "
    "the mean is taken.",
    reference=lambda: 1 / 6,
    test=_test_always_sadness,
    hints=(
        "Draw the table: six rows, each of which adds up to 1. Which column has all the entries?",
        "The column of *sadness* is all ones. One of them is on the diagonal.",
    ),
)
