"""The exercises of notebook 10: figures, intervals, and an evaluation that leaks."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from gen_affect_lib.avatars import EMOTIONS
from gen_affect_lib.course.checks import Exercise, Wrong, check_choice, check_number, compare
from gen_affect_lib.encoders.affect import branches
from gen_affect_lib.evaluation import figures, reading

# --- 10.1 right_group ------------------------------------------------------------------------------------------------


def right_group(probabilities: np.ndarray, asked: Sequence[str]) -> np.ndarray:
    """Which pictures, with probabilities (M, 135), have the group of the word asked for as their likeliest group: bool (M,)."""
    return figures.class_probabilities(probabilities, 25).argmax(axis=1) == _groups_of(asked)


def _groups_of(asked: Sequence[str], classes: int = 25) -> np.ndarray:
    return branches()[classes][[EMOTIONS.index(word) for word in asked]]


def _test_right_group(answer) -> None:
    rng = np.random.default_rng(0)
    cases = []
    for spread, count in ((0.1, 60), (0.02, 17)):
        said = rng.dirichlet(np.full(135, spread), size=count)
        likeliest = figures.class_probabilities(said, 25).argmax(axis=1)
        words = [rng.choice(np.flatnonzero(branches()[25] == group)) for group in likeliest]  # these are right
        words[::3] = said[::3].argmax(axis=1)  # these where the group of the likeliest word is
        words[1::3] = rng.integers(0, 135, len(words[1::3]))
        cases.append((said, [EMOTIONS[word] for word in words]))

    def by_mean(said, asked):
        sums = figures.class_probabilities(said, 25)
        return (sums / np.bincount(branches()[25])).argmax(axis=1) == _groups_of(asked)

    compare(
        answer,
        right_group,
        *cases,
        mistakes=[
            (
                "the likeliest *word* was looked for first, and then its group. Ten words of one group at 5 % each are 50 % for it: add up "
                "within each group, then look for the largest sum.",
                lambda said, asked: branches()[25][said.argmax(axis=1)] == _groups_of(asked),
            ),
            (
                "the probabilities of a group were averaged. They are added up: a group with more words may well be likelier.",
                by_mean,
            ),
            (
                "these are the words that are right, of 135. Compare the groups.",
                lambda said, asked: said.argmax(axis=1) == np.array([EMOTIONS.index(word) for word in asked]),
            ),
            (
                "these are families, of 6. `branches()[25]` has the numbers of the groups.",
                lambda said, asked: figures.class_probabilities(said, 6).argmax(axis=1) == _groups_of(asked, 6),
            ),
            (
                "this is one number, the share. Return which pictures are right, (M,), and let the caller average.",
                lambda said, asked: right_group(said, asked).mean(),
            ),
            (
                "these are the likeliest groups. Return whether each is the group of the word that was asked for.",
                lambda said, asked: figures.class_probabilities(said, 25).argmax(axis=1),
            ),
        ],
    )


check_right_group = Exercise(
    "10.1",
    "right_group",
    "The right group",
    "implement",
    difficulty=2,
    minutes=10,
    points=2,
    purpose="The figure behind claim (a), and a question of order that is easily got wrong: first add, or first choose?",
    reference=right_group,
    test=_test_right_group,
    hints=(
        "Make a table (M, 25) of zeros, and give each word's column of probabilities to the column of its group.",
        "`for word, group in enumerate(branches()[25]): by_group[:, group] += probabilities[:, word]`, then `argmax(axis=1)`, "
        "held against the numbers of the groups of `asked`.",
    ),
)

# --- 10.2 times_wider ------------------------------------------------------------------------------------------------


def _test_times_wider(answer) -> None:
    check_number(
        answer,
        10,
        within=0.6,
        wrong=[
            (
                100,
                "there are 100 times as few independent draws, but the width of an interval goes with the *root* of their number.",
            ),
            (
                1,
                "the mean is the same, its interval is not: all pictures of one person succeed or fail together, so there are only ten draws.",
            ),
            (
                10**0.5,
                "the root is right, but of what? One interval takes 1,000 draws for independent, the other 10: divide those.",
            ),
            (1000**0.5, "that compares with a single draw. There are ten people."),
            (0.1, "that is the other way around: the fewer independent draws, the *wider* the interval."),
        ],
    )


check_times_wider = Exercise(
    "10.2",
    "times_wider",
    "How many draws are there?",
    "predict",
    difficulty=2,
    minutes=5,
    points=1,
    purpose="Intervals that are too narrow make chance look like progress, and this is the usual reason for them.",
    reference=lambda: 10,
    test=_test_times_wider,
    hints=(
        "If you know one picture of a person here, you know them all. How many independent draws are there really?",
        "The width goes with 1 / √draws. It is 1,000 draws in one case and 10 in the other.",
    ),
)

# --- 10.3 interval ---------------------------------------------------------------------------------------------------


def interval(values: np.ndarray, draws: int = 500, seed: int = 0) -> tuple[float, float]:
    """values (N, …) of N people: the middle 95 % of the mean when people are drawn again, with replacement."""
    return figures.bootstrap(figures.ratio(values), len(values), draws, seed)


def _of_means(means, among=(2.5, 97.5)) -> tuple[float, float]:
    return tuple(float(value) for value in np.percentile(means, among))


def _numbers(result, count: int, name: str) -> np.ndarray:
    """A result as so many finite numbers, or Wrong."""
    try:
        numbers = np.asarray(result, np.float64).ravel()
    except (TypeError, ValueError):
        raise Wrong(f"`{name}` should return {count} numbers; {type(result).__name__} came back.") from None
    if result is None or len(numbers) != count:
        raise Wrong(
            f"`{name}` should return {count} numbers; {'nothing' if result is None else len(numbers)} came back."
        )
    if not np.isfinite(numbers).all():
        raise Wrong(f"`{name}` returns {numbers}: all should be finite.")
    return numbers


def _like(got: np.ndarray, want: Sequence[float], within: float = 0.05) -> bool:
    """Whether two intervals agree, up to a share of their width: other random numbers move them a little."""
    return bool(np.abs(got - want).max() <= within * (want[-1] - want[-2]) + 1e-9)


def _test_interval(answer) -> None:
    rng = np.random.default_rng(3)
    values = (rng.random((30, 40)) < rng.beta(0.8, 0.4, (30, 1))).astype(
        float
    )  # people differ more than their pictures
    N, M = values.shape
    draws = 6000
    got, want = (_numbers(function(values.copy(), draws, 7), 2, "interval") for function in (answer, interval))
    of_people = values.mean(axis=1)
    if not _like(got, want):
        again = np.random.default_rng(5)
        pictures = [again.choice(values.ravel(), values.size).mean() for _ in range(draws)]
        people = of_people[again.integers(0, N, (draws, N))].mean(axis=1)
        too_many = of_people[again.integers(0, N, (draws, N * M))].mean(axis=1)
        if got[0] > got[1] and _like(got[::-1], want):
            raise Wrong("the ends have changed places: first the low one, then the high one.")
        if got[1] - got[0] < 1e-6:
            raise Wrong(
                "all draws give the same number. Make the generator *once*, before the draws; draw *with* replacement, so that "
                "some people come twice; and take the *mean* of each draw."
            )
        if got[1] < want[0]:  # both ends lie among the very least
            raise Wrong(
                "both ends lie below all but a few means: `np.percentile` takes percent, 2.5 and 97.5, and not shares of 1."
            )
        for words, mistaken in (
            (
                "single pictures are drawn again. Those of one person are not independent: draw *people*, each with all pictures, and "
                "the interval becomes wider.",
                _of_means(pictures),
            ),
            (
                "single pictures are drawn again. Those of one person are not independent: draw *people*, and as many of them as there are.",
                _of_means(too_many),
            ),
            (
                "these are percentiles of the people themselves. Wanted is how the *mean* of N people moves: draw N people, take their "
                "mean, and do that `draws` times.",
                _of_means(of_people),
            ),
            ("these are the middle 90 %: for 95 %, 2.5 % are cut off at each end.", _of_means(people, (5, 95))),
            (
                "these are the least and the largest mean. The middle 95 % lie between the percentiles 2.5 and 97.5.",
                (people.min(), people.max()),
            ),
        ):
            if _like(got, np.array(mistaken)):
                raise Wrong(words)
        raise Wrong(
            f"of {N} people with {M} pictures each the interval [{got[0]:.3f}, {got[1]:.3f}] came back, and it should be near "
            f"[{want[0]:.3f}, {want[1]:.3f}]."
        )
    few = answer(values.copy(), 50, 7)
    if not np.array_equal(few, answer(values.copy(), 50, 7)):
        raise Wrong(
            "the interval is right, but the same `seed` gives another one each time: make the generator inside, from `seed`."
        )
    if np.array_equal(few, answer(values.copy(), 50, 8)):
        raise Wrong("the interval is right, but `seed` is not used: another seed should move it a little.")
    low, high = _numbers(answer(values.copy(), 1, 0), 2, "interval")
    if low != high:
        raise Wrong("the interval is right, but `draws` is not used: with a single draw both ends are the same.")
    if not _like(_numbers(answer(of_people.copy(), draws, 7), 2, "interval"), np.array(interval(of_people, draws, 7))):
        raise Wrong("right for (N, M), but not for values (N,), one number for each person.")
    few = rng.random((30, 3))
    if not _like(_numbers(answer(few.copy(), draws, 7), 2, "interval"), np.array(interval(few, draws, 7))):
        raise Wrong(
            "the pictures of each person are drawn again too, which makes the interval wider: take who is drawn with all pictures, as they are."
        )
    uneven = rng.exponential(size=(10, 5)) ** 3  # a few lie far above the others
    if not _like(_numbers(answer(uneven.copy(), 20_000, 7), 2, "interval"), np.array(interval(uneven, 20_000, 7))):
        raise Wrong(
            "right only where the means lie evenly around theirs. Where a few people are far above the others, mean ± 1.96 standard "
            "deviations is not the middle 95 %: take the percentiles of the means that were drawn."
        )


check_interval = Exercise(
    "10.3",
    "interval",
    "Draw the people again",
    "implement",
    difficulty=3,
    minutes=15,
    points=3,
    purpose="It gives an interval to any figure whatever, with no formula: only the question of *what* is drawn again is left.",
    reference=interval,
    test=_test_interval,
    hints=(
        "One draw is a list of N numbers of people, with repetitions. It picks whole rows of `values`, and gives one mean.",
        "`rng = np.random.default_rng(seed)`; each draw is `values[rng.integers(0, N, N)].mean()`; the ends are `np.percentile(means, (2.5, 97.5))`.",
    ),
)

# --- 10.4 concordance ------------------------------------------------------------------------------------------------


def _test_concordance(answer) -> None:
    rng = np.random.default_rng(1)
    true = rng.normal(0.1, 0.6, 12)
    cases = [
        (true + rng.normal(0, 0.2, 12), true),
        (0.5 * true + 0.3, true),
        (true - 1.0, true),
        (-true, true),
        (true, true),
    ]

    def with_parts(twice: float = 2.0, apart: float = 1.0, ddof: int = 0, power: int = 2):
        def mistaken(read, true):
            covariance = np.cov(read, true, ddof=ddof)[0, 1]
            return (
                twice
                * covariance
                / (read.var(ddof=ddof) + true.var(ddof=ddof) + apart * np.abs(read.mean() - true.mean()) ** power)
            )

        return mistaken

    compare(
        answer,
        reading.concordance,
        *cases,
        tolerance=1e-9,
        mistakes=[
            (
                "this is Pearson's correlation. It stays 1 for a reader who says half of everything, or everything too high.",
                lambda read, true: np.corrcoef(read, true)[0, 1],
            ),
            (
                "the distance of the two means is missing below the line: whoever reads everything too high must lose by it.",
                with_parts(apart=0),
            ),
            ("the distance of the two means is not squared.", with_parts(power=1)),
            (
                "the distance of the two means is not squared, and may be below 0.",
                lambda read, true: (
                    2 * np.cov(read, true, ddof=0)[0, 1] / (read.var() + true.var() + read.mean() - true.mean())
                ),
            ),
            (
                "the covariance is not centred: take off each one's own mean before you multiply.",
                lambda read, true: (
                    2 * (read * true).mean() / (read.var() + true.var() + (read.mean() - true.mean()) ** 2)
                ),
            ),
            ("the 2 is missing: a perfect reader would get 0.5.", with_parts(twice=1)),
            (
                "the variances are divided by M − 1 and not by M, which the means are: take `ddof=0` throughout.",
                with_parts(ddof=1),
            ),
            (
                "variance and standard deviation have changed places: below the line are the variances.",
                lambda read, true: (
                    2 * np.cov(read, true, ddof=0)[0, 1] / (read.std() + true.std() + (read.mean() - true.mean()) ** 2)
                ),
            ),
            (
                "`np.cov` divides by M − 1, `var` by M. Give `np.cov` a `ddof=0`, or take the mean of the products.",
                lambda read, true: (
                    2 * np.cov(read, true)[0, 1] / (read.var() + true.var() + (read.mean() - true.mean()) ** 2)
                ),
            ),
        ],
    )


check_concordance = Exercise(
    "10.4",
    "concordance",
    "To agree is more than to rise together",
    "implement",
    difficulty=2,
    minutes=10,
    points=2,
    purpose="A figure for numbers should not forgive a reader who is always too timid, and correlation does.",
    reference=reading.concordance,
    test=_test_concordance,
    hints=(
        "The covariance is the mean of the products of what is left when each takes off its own mean.",
        "`((read - read.mean()) * (true - true.mean())).mean()`, and twice that over `read.var() + true.var() + (…) ** 2`.",
    ),
)

# --- 10.5 unsupported_claim ------------------------------------------------------------------------------------------


def _test_unsupported_claim(answer) -> None:
    check_choice(
        answer,
        "c",
        {
            "a": "the first rows, right families, groups and words, lie at the black marks: true drawings do no better.",
            "b": "found among 1,000 and the cosine to the reference lie near their black marks, and far from the dotted ones at 0.",
        },
    )


check_unsupported_claim = Exercise(
    "10.5",
    "unsupported_claim",
    "Which claim is not borne out?",
    "read",
    difficulty=1,
    minutes=3,
    points=1,
    purpose="A high number may be worth nothing and a low one much: only its place between floor and ceiling says it.",
    reference=lambda: "c",
    test=_test_unsupported_claim,
    hints=(
        "Forget the numbers on the axis. Which dot lies near a dotted mark, or even to the left of one?",
        "Look at the lowest rows: what is said of a *set* of pictures.",
    ),
)

# --- 10.6 found ------------------------------------------------------------------------------------------------------


def found(who: np.ndarray, person: np.ndarray, gallery: np.ndarray, owner: np.ndarray, shown: np.ndarray) -> np.ndarray:
    """Whether each picture's nearest in the gallery, its own reference left out, shows the same person: bool (M,)."""
    likeness = who @ gallery.T
    likeness[np.arange(len(who)), shown] = -np.inf
    return owner[likeness.argmax(axis=1)] == person


def _test_found(answer) -> None:
    rng = np.random.default_rng(2)

    def unit(x):
        return x / np.linalg.norm(x, axis=1, keepdims=True)

    cases = []
    for people, pictures, size in ((12, 30, 4), (40, 60, 6), (6, 9, 3), (6, 9, 3), (6, 9, 3)):
        faces = rng.normal(size=(people, size))
        owner = np.concatenate([np.arange(people), rng.permutation(people)])
        gallery = unit(faces[owner] + 0.5 * rng.normal(size=(2 * people, size)))
        person = rng.integers(0, people, pictures)
        mix = rng.permutation(2 * people)  # so that nobody's place is anybody's number
        owner, gallery = owner[mix], gallery[mix]
        shown = np.array([rng.choice(np.flatnonzero(owner == p)) for p in person])
        who = unit(faces[person] + 0.6 * rng.normal(size=(pictures, size)))
        who[::4] = gallery[shown[::4]]  # copies of the reference
        cases.append((who, person, gallery, owner, shown))
    # All cosines below 0 but that to the reference: a zero in its place would be the largest.
    gallery = unit(np.array([[1.0, 0.0], [-1.0, 0.2], [-1.0, -0.6]]))
    cases.append((np.array([[1.0, 0.0]]), np.array([0]), gallery, np.array([0, 0, 1]), np.array([0])))

    def masked(hide: Callable, low: float = -np.inf, whose: bool = True):
        def mistaken(who, person, gallery, owner, shown):
            likeness = np.where(
                hide(person[:, None], owner[None], shown[:, None], np.arange(len(gallery))[None], shown),
                low,
                who @ gallery.T,
            )
            return (owner[likeness.argmax(axis=1)] if whose else likeness.argmax(axis=1)) == person

        return mistaken

    def own(person, owner, shown, place, all_shown):
        return place == shown

    def cut_out(who, person, gallery, owner, shown):
        nearest = [(np.delete(gallery, out, axis=0) @ one).argmax() for one, out in zip(who, shown)]
        return owner[nearest] == person

    def by_place(who, person, gallery, owner, shown):
        likeness = who @ gallery.T
        likeness[np.arange(len(who)), shown] = -np.inf
        return owner[likeness.argmax(axis=1)] == owner[person]

    compare(
        answer,
        found,
        *cases,
        mistakes=[
            ("nothing is changed yet: it does what `broken_found` does.", masked(lambda *_: False, whose=False)),
            (
                "the very picture that the model was given is still in the gallery, and a copy of it finds itself. Leave it out, each picture's own.",
                masked(lambda *_: False),
            ),
            (
                "the reference is left out now, but the *place* of the nearest picture is still compared with the number of the person. "
                "There are several pictures of a person: `owner` says whose each is.",
                masked(own, whose=False),
            ),
            (
                "`person` is the number of a person already; `owner[person]` says whose the picture at that *place* is.",
                by_place,
            ),
            (
                "all pictures of the right person are left out, so nobody can be found. Only the one that was shown must go.",
                masked(lambda person, owner, *_: person == owner),
            ),
            (
                "the references of *all* pictures are left out for each. Other people's stay, as strangers to be mistaken for: leave out only its own.",
                masked(lambda person, owner, shown, place, all_shown: np.isin(place, all_shown)),
            ),
            (
                "the reference's cosine was set to 0, and where all others are below 0 that wins. Take −infinity.",
                masked(own, low=0.0),
            ),
            (
                "after a picture is cut out of the gallery, those behind it move up by one place, and `owner` no longer fits: cut it too, or hide the "
                "picture instead of cutting it.",
                cut_out,
            ),
            ("this is a share. Return which pictures are right, (M,).", lambda *case: found(*case).mean()),
        ],
    )


check_found = Exercise(
    "10.6",
    "found",
    "Too good to be true",
    "repair",
    difficulty=3,
    minutes=15,
    points=3,
    purpose="Most leaks of evaluations are of this kind: what is to be found lies among what it is looked for in.",
    reference=found,
    test=_test_found,
    hints=(
        "One fault pays those who copy, the other punishes those who do not. What is nearest to a copy? And whose number is `nearest`?",
        "Before `argmax`, give each row's place `shown` the worst likeness there is; after it, ask `owner` whose picture was the nearest.",
    ),
)

# --- 10.7 ahead ------------------------------------------------------------------------------------------------------


def ahead(
    ours: Sequence[float], theirs: Sequence[float], draws: int = 2000, seed: int = 0
) -> tuple[float, float, float]:
    """Of the same N people: the mean of ours minus theirs, and the middle 95 % of it when people are drawn again."""
    gap = figures.difference(*(figures.ratio(np.asarray(those)) for those in (ours, theirs)), len(ours), draws, seed)
    return float(gap["value"]), gap["low"], gap["high"]


def _test_ahead(answer) -> None:
    rng = np.random.default_rng(4)
    person = rng.random(50)
    ours, theirs = ((person + shift + rng.normal(0, 0.08, 50)).tolist() for shift in (0.06, 0.0))
    got, want = (_numbers(function(list(ours), list(theirs), 6000, 7), 3, "ahead") for function in (answer, ahead))
    if not _like(got, want):
        if _like(-got[[0, 2, 1]], want) or _like(-got, want):
            raise Wrong("the sign is wrong: ours minus theirs, so that above 0 ours is ahead.")
        if _like(got[[1, 0, 2]], want) or _like(got[[2, 0, 1]], want):
            raise Wrong("the order is: mean, low end, high end.")
        again = np.random.default_rng(5)
        one, other = (np.asarray(values)[again.integers(0, 50, (6000, 50))].mean(axis=1) for values in (ours, theirs))
        (low, high), (their_low, their_high) = _of_means(one), _of_means(other)
        gap = np.asarray(ours) - np.asarray(theirs)
        for words, ends in (
            (
                "each model's people are drawn apart from the other's. Draw *once*, and take the same people of both: that is what "
                "makes it paired.",
                _of_means(one - other),
            ),
            (
                "the ends of two intervals are subtracted, the low from the low and the high from the high. Take the difference person by person first.",
                (low - their_low, high - their_high),
            ),
            (
                "the ends of two intervals are subtracted crosswise, which is far too wide. Take the difference person by person first.",
                (low - their_high, high - their_low),
            ),
            (
                "these are percentiles of the people's differences. Wanted is how their *mean* moves when people are drawn again.",
                _of_means(gap),
            ),
        ):
            if _like(got, np.array([want[0], *ends])):
                raise Wrong(words)
        raise Wrong(
            f"{got[0]:.3f} [{got[1]:.3f}, {got[2]:.3f}] came back, and it should be near {want[0]:.3f} [{want[1]:.3f}, {want[2]:.3f}]."
        )
    if abs(got[0] - want[0]) > 1e-9:
        raise Wrong(
            "the interval is right. The first number is the mean difference of the people as they are, not of those drawn again."
        )
    if not np.array_equal(got, answer(list(ours), list(theirs), 6000, 7)):
        raise Wrong(
            "right, but the same `seed` gives another interval each time: make the generator inside, from `seed`."
        )
    few, again, other = (_numbers(answer(list(ours), list(theirs), 50, seed), 3, "ahead") for seed in (7, 7, 8))
    if not np.array_equal(few, again):
        raise Wrong("the numbers are right, but the same `seed` gives others each time: hand it on to `interval`.")
    if np.array_equal(few, other):
        raise Wrong("the numbers are right, but `seed` is not used: hand it on to `interval`.")
    _, low, high = _numbers(answer(list(ours), list(theirs), 1, 0), 3, "ahead")
    if low != high:
        raise Wrong("the numbers are right, but `draws` is not used: with a single draw both ends are the same.")


check_ahead = Exercise(
    "10.7",
    "ahead",
    "Person by person",
    "implement",
    difficulty=2,
    minutes=10,
    points=2,
    purpose="It finds differences that two separate intervals hide, and costs nothing but the same people for both models.",
    reference=ahead,
    test=_test_ahead,
    hints=(
        "Take the difference of each person first. Then there is one list of N numbers, and you have an interval for such a list.",
        "`gap = np.array(ours) - np.array(theirs)`, and the ends are `interval(gap, draws, seed)`.",
    ),
)
