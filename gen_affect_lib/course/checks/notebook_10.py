"""The exercises of notebook 10: figures, confidence intervals, and an evaluation with a leak."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from gen_affect_lib.avatars import EMOTIONS
from gen_affect_lib.avatars.emotions import branches, class_probabilities
from gen_affect_lib.course.checks import Exercise, Wrong, check_choice, check_number, compare
from gen_affect_lib.evaluation.metrics import bootstrap
from gen_affect_lib.evaluation.metrics.expression import concordance

# --- 10.1 right_group ------------------------------------------------------------------------------------------------


def right_group(probabilities: np.ndarray, asked: Sequence[str]) -> np.ndarray:
    """Whether the likeliest group of each picture is that of its target word: bool (M,).

    probabilities: (M, 135), of the words. asked: the M target words.
    """
    return class_probabilities(probabilities, 25).argmax(axis=1) == _classes_of(asked)


def _classes_of(words: Sequence[str], classes: int = 25) -> np.ndarray:
    return branches()[classes][[EMOTIONS.index(word) for word in words]]


def _test_right_group(answer: Callable) -> None:
    rng = np.random.default_rng(0)
    cases = []
    for spread, count in ((0.1, 60), (0.02, 17)):
        probabilities = rng.dirichlet(np.full(135, spread), size=count)
        likeliest = class_probabilities(probabilities, 25).argmax(axis=1)
        words = [rng.choice(np.flatnonzero(branches()[25] == group)) for group in likeliest]  # all right
        words[::3] = probabilities[::3].argmax(axis=1)  # right only where the likeliest word is in the likeliest group
        words[1::3] = rng.integers(0, 135, len(words[1::3]))
        cases.append((probabilities, [EMOTIONS[word] for word in words]))

    def by_mean(probabilities, asked):
        sums = class_probabilities(probabilities, 25)
        return (sums / np.bincount(branches()[25])).argmax(axis=1) == _classes_of(asked)

    compare(
        answer,
        right_group,
        *cases,
        mistakes=[
            (
                "the likeliest *word* was chosen first, and then its group. Ten words of one group at 5 % each make "
                "the group 50 % likely: sum within each group first, then choose the largest sum.",
                lambda probabilities, asked: branches()[25][probabilities.argmax(axis=1)] == _classes_of(asked),
            ),
            (
                "the probabilities of a group were averaged. Sum them: a group with more words may well be likelier.",
                by_mean,
            ),
            (
                "these are the pictures whose word is right, of 135. Compare the groups.",
                lambda probabilities, asked: (
                    probabilities.argmax(axis=1) == np.array([EMOTIONS.index(word) for word in asked])
                ),
            ),
            (
                "these are families, of 6. `branches()[25]` has the indices of the groups.",
                lambda probabilities, asked: (
                    class_probabilities(probabilities, 6).argmax(axis=1) == _classes_of(asked, 6)
                ),
            ),
            (
                "this is one number, the share. Return which pictures are right, (M,), without averaging.",
                lambda probabilities, asked: right_group(probabilities, asked).mean(),
            ),
            (
                "these are the likeliest groups. Return whether each is the group of the target word.",
                lambda probabilities, asked: class_probabilities(probabilities, 25).argmax(axis=1),
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
    purpose=(
        "The figure behind claim (a), and a question of order that is easily got wrong: first add, or first choose?"
    ),
    reference=right_group,
    test=_test_right_group,
    hints=(
        "Make a table (M, 25) of zeros, and add each word's column of probabilities to the column of its group.",
        "`for word, group in enumerate(branches()[25]): by_group[:, group] += probabilities[:, word]`, then "
        "`argmax(axis=1)`, compared with the group indices of `asked`.",
    ),
)

# --- 10.2 times_wider ------------------------------------------------------------------------------------------------


def _test_times_wider(answer: Callable) -> None:
    check_number(
        answer,
        10,
        within=0.6,
        wrong=[
            (
                100,
                "there are 100 times fewer independent draws, but the width of an interval depends on the *root* of "
                "their number.",
            ),
            (
                1,
                "the mean is the same, but its interval is not: all pictures of one person succeed or fail together, "
                "so there are only ten draws.",
            ),
            (
                10**0.5,
                "the root is right, but of what? One interval assumes 1,000 independent draws, the other 10: take the "
                "root of their quotient.",
            ),
            (1000**0.5, "this compares with a single draw. There are ten people."),
            (0.1, "it is the other way around: with fewer independent draws the interval is *wider*."),
        ],
    )


check_times_wider = Exercise(
    "10.2",
    "times_wider",
    "How many independent draws?",
    "predict",
    difficulty=2,
    minutes=5,
    points=1,
    purpose="Intervals that are too narrow make chance look like progress, and this is the usual reason for them.",
    reference=lambda: 10,
    test=_test_times_wider,
    hints=(
        "Here all pictures of a person have the same result. How many independent draws are there?",
        "The width is proportional to 1 / √draws. There are 1,000 draws in one case and 10 in the other.",
    ),
)

# --- 10.3 interval ---------------------------------------------------------------------------------------------------


def interval(values: np.ndarray, draws: int = 500, seed: int = 0) -> tuple[float, float]:
    """The ends of the 95 % bootstrap interval of the mean of values (N, …), resampling the N people."""
    return bootstrap.bootstrap(bootstrap.ratio(values), len(values), draws, seed)


def _of_means(means: np.ndarray | Sequence[float], percents: tuple[float, float] = (2.5, 97.5)) -> np.ndarray:
    return np.percentile(means, percents)


def _numbers(result: object, count: int, name: str) -> np.ndarray:
    """The result of an answer as `count` finite numbers; raises Wrong for anything else."""
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


def _close(got: np.ndarray, want: np.ndarray, within: float = 0.05) -> bool:
    """Whether two intervals agree up to a share of their width, since other random numbers move them a little."""
    return bool(np.abs(got - want).max() <= within * (want[-1] - want[-2]) + 1e-9)


def _test_interval(answer: Callable) -> None:
    rng = np.random.default_rng(3)
    values = (rng.random((30, 40)) < rng.beta(0.8, 0.4, (30, 1))).astype(float)  # people differ more than pictures
    N, M = values.shape
    draws = 6000
    got, want = (_numbers(function(values.copy(), draws, 7), 2, "interval") for function in (answer, interval))
    of_people = values.mean(axis=1)
    if not _close(got, want):
        again = np.random.default_rng(5)
        pictures = [again.choice(values.ravel(), values.size).mean() for _ in range(draws)]
        people = of_people[again.integers(0, N, (draws, N))].mean(axis=1)
        too_many = of_people[again.integers(0, N, (draws, N * M))].mean(axis=1)
        if got[0] > got[1] and _close(got[::-1], want):
            raise Wrong("the ends have changed places: return the low end first.")
        if got[1] - got[0] < 1e-6:
            raise Wrong(
                "all draws give the same number. Make the generator *once*, before the draws; draw *with* replacement, "
                "so that some people occur twice; and take the *mean* of each draw."
            )
        if got[1] < want[0]:  # percentiles 0.025 and 0.975
            raise Wrong(
                "both ends lie below nearly all of the means: `np.percentile` takes percent, 2.5 and 97.5, not shares "
                "of 1."
            )
        for message, mistaken in (
            (
                "single pictures are resampled. Those of one person are not independent: resample *people*, each with "
                "all pictures, and the interval becomes wider.",
                _of_means(pictures),
            ),
            (
                "too many people are drawn. The pictures of one person are not independent: draw *people*, and only N "
                "in each draw.",
                _of_means(too_many),
            ),
            (
                "these are percentiles of the people themselves. The interval is of the *mean*: draw N people, take "
                "their mean, and repeat that `draws` times.",
                _of_means(of_people),
            ),
            ("these are the middle 90 %: for 95 %, 2.5 % are cut off at each end.", _of_means(people, (5, 95))),
            (
                "these are the smallest and the largest mean. The middle 95 % lie between the percentiles 2.5 and "
                "97.5.",
                np.array([people.min(), people.max()]),
            ),
        ):
            if _close(got, mistaken):
                raise Wrong(message)
        raise Wrong(
            f"for {N} people with {M} pictures each the interval [{got[0]:.3f}, {got[1]:.3f}] came back; expected is "
            f"about [{want[0]:.3f}, {want[1]:.3f}]."
        )
    few = answer(values.copy(), 50, 7)
    if not np.array_equal(few, answer(values.copy(), 50, 7)):
        raise Wrong(
            "the interval is right, but the same `seed` gives another one each time: make the generator inside the "
            "function, from `seed`."
        )
    if np.array_equal(few, answer(values.copy(), 50, 8)):
        raise Wrong("the interval is right, but `seed` is not used: another seed should change it a little.")
    low, high = _numbers(answer(values.copy(), 1, 0), 2, "interval")
    if low != high:
        raise Wrong("the interval is right, but `draws` is not used: with a single draw both ends are equal.")
    if not _close(_numbers(answer(of_people.copy(), draws, 7), 2, "interval"), np.array(interval(of_people, draws, 7))):
        raise Wrong("right for (N, M), but not for values (N,), one number for each person.")
    few = rng.random((30, 3))
    if not _close(_numbers(answer(few.copy(), draws, 7), 2, "interval"), np.array(interval(few, draws, 7))):
        raise Wrong(
            "the pictures of each person are resampled too, which makes the interval wider: take each drawn person "
            "with all pictures, as they are."
        )
    skewed = rng.exponential(size=(10, 5)) ** 3
    if not _close(_numbers(answer(skewed.copy(), 20_000, 7), 2, "interval"), np.array(interval(skewed, 20_000, 7))):
        raise Wrong(
            "right only for a symmetric distribution. Where a few people lie far above the others, mean ± 1.96 "
            "standard deviations is not the middle 95 %: take the percentiles of the resampled means."
        )


check_interval = Exercise(
    "10.3",
    "interval",
    "Resample the people",
    "implement",
    difficulty=3,
    minutes=15,
    points=3,
    purpose="The bootstrap gives any figure an interval without a formula; you only decide *what* is resampled.",
    reference=interval,
    test=_test_interval,
    hints=(
        "One draw is a list of N indices of people, with repetitions. It selects whole rows of `values`, and gives one "
        "mean.",
        "`rng = np.random.default_rng(seed)`; each draw is `values[rng.integers(0, N, N)].mean()`; the ends are "
        "`np.percentile(means, (2.5, 97.5))`.",
    ),
)

# --- 10.4 concordance ------------------------------------------------------------------------------------------------


def _test_concordance(answer: Callable) -> None:
    rng = np.random.default_rng(1)
    true = rng.normal(0.1, 0.6, 12)
    cases = [
        (true + rng.normal(0, 0.2, 12), true),
        (0.5 * true + 0.3, true),
        (true - 1.0, true),
        (-true, true),
        (true, true),
    ]

    def variant(factor: float = 2.0, shift: float = 1.0, ddof: int = 0, power: int = 2) -> Callable:
        """The formula with these parts changed."""

        def mistaken(read, true):
            covariance = np.cov(read, true, ddof=ddof)[0, 1]
            return (
                factor
                * covariance
                / (read.var(ddof=ddof) + true.var(ddof=ddof) + shift * np.abs(read.mean() - true.mean()) ** power)
            )

        return mistaken

    compare(
        answer,
        concordance,
        *cases,
        tolerance=1e-9,
        mistakes=[
            (
                "this is Pearson's correlation. It stays 1 if all values read are half as large, or all too high.",
                lambda read, true: np.corrcoef(read, true)[0, 1],
            ),
            (
                "the difference of the two means is missing in the denominator: values that are all too high must "
                "lower the concordance.",
                variant(shift=0),
            ),
            ("the difference of the two means is not squared.", variant(power=1)),
            (
                "the difference of the two means is not squared, and may be below 0.",
                lambda read, true: (
                    2 * np.cov(read, true, ddof=0)[0, 1] / (read.var() + true.var() + read.mean() - true.mean())
                ),
            ),
            (
                "the covariance is not centred: subtract each array's own mean before you multiply.",
                lambda read, true: (
                    2 * (read * true).mean() / (read.var() + true.var() + (read.mean() - true.mean()) ** 2)
                ),
            ),
            ("the factor 2 is missing: a perfect reading would get 0.5.", variant(factor=1)),
            (
                "the variances are divided by M − 1, and the means by M: take `ddof=0` throughout.",
                variant(ddof=1),
            ),
            (
                "the denominator has standard deviations instead of variances.",
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
    "Agreement is more than correlation",
    "implement",
    difficulty=2,
    minutes=10,
    points=2,
    purpose="A figure for numbers should be lower if all expressions are too weak, and correlation is not.",
    reference=concordance,
    test=_test_concordance,
    hints=(
        "The covariance is the mean of the products after each array's own mean is subtracted.",
        "`((read - read.mean()) * (true - true.mean())).mean()`, and twice that over "
        "`read.var() + true.var() + (…) ** 2`.",
    ),
)

# --- 10.5 unsupported_claim ------------------------------------------------------------------------------------------


def _test_unsupported_claim(answer: Callable) -> None:
    check_choice(
        answer,
        "c",
        {
            "a": "the first rows, right families, groups and words, lie at the black marks: true drawings are no "
            "better.",
            "b": "found among 1,000 and the cosine to the reference lie near their black marks, and far from the "
            "dotted ones at 0.",
        },
    )


check_unsupported_claim = Exercise(
    "10.5",
    "unsupported_claim",
    "Which claim is not supported?",
    "read",
    difficulty=1,
    minutes=3,
    points=1,
    purpose="A number has to be read between its floor and its ceiling.",
    reference=lambda: "c",
    test=_test_unsupported_claim,
    hints=(
        "Ignore the numbers on the axis. Which dot lies near a dotted mark, or even to the left of one?",
        "Look at the lowest rows, the figures of a *set* of pictures.",
    ),
)

# --- 10.6 found ------------------------------------------------------------------------------------------------------


def found(who: np.ndarray, person: np.ndarray, gallery: np.ndarray, owner: np.ndarray, shown: np.ndarray) -> np.ndarray:
    """Whether each picture's nearest in the gallery, without its own reference, shows the same person: bool (M,).

    Args:
        who: embeddings of M pictures, (M, E), unit length. person: int (M,), who should be on each.
        gallery: embeddings of K pictures, (K, E), unit length. owner: int (K,), who is on each.
        shown: int (M,), the index in the gallery of each picture's reference.
    """
    cosines = who @ gallery.T
    cosines[np.arange(len(who)), shown] = -np.inf
    return owner[cosines.argmax(axis=1)] == person


def _test_found(answer: Callable) -> None:
    rng = np.random.default_rng(2)

    def unit(x: np.ndarray) -> np.ndarray:
        return x / np.linalg.norm(x, axis=1, keepdims=True)

    cases = []
    for people, pictures, size in ((12, 30, 4), (40, 60, 6), (6, 9, 3), (6, 9, 3), (6, 9, 3)):
        faces = rng.normal(size=(people, size))
        owner = np.concatenate([np.arange(people), rng.permutation(people)])
        gallery = unit(faces[owner] + 0.5 * rng.normal(size=(2 * people, size)))
        person = rng.integers(0, people, pictures)
        mix = rng.permutation(2 * people)  # so that indices of pictures are not indices of people
        owner, gallery = owner[mix], gallery[mix]
        shown = np.array([rng.choice(np.flatnonzero(owner == p)) for p in person])
        who = unit(faces[person] + 0.6 * rng.normal(size=(pictures, size)))
        who[::4] = gallery[shown[::4]]  # copies of the reference
        cases.append((who, person, gallery, owner, shown))
    # All cosines but that to the reference are below 0, so that a 0 in its place would be the largest.
    gallery = unit(np.array([[1.0, 0.0], [-1.0, 0.2], [-1.0, -0.6]]))
    cases.append((np.array([[1.0, 0.0]]), np.array([0]), gallery, np.array([0, 0, 1]), np.array([0])))

    def masked(hide: Callable, value: float = -np.inf) -> Callable:
        """The search with other pictures of the gallery hidden, their cosines set to `value`."""

        def mistaken(who, person, gallery, owner, shown):
            return owner[_nearest(hide, value, who, person, gallery, owner, shown)] == person

        return mistaken

    def by_index(hide: Callable) -> Callable:
        """The same search, but the index of the nearest picture is compared with the number of the person."""

        def mistaken(who, person, gallery, owner, shown):
            return _nearest(hide, -np.inf, who, person, gallery, owner, shown) == person

        return mistaken

    def own(person, owner, shown, place, all_shown):
        return place == shown

    def cut_out(who, person, gallery, owner, shown):
        nearest = [(np.delete(gallery, out, axis=0) @ one).argmax() for one, out in zip(who, shown)]
        return owner[nearest] == person

    def owner_of_person(who, person, gallery, owner, shown):
        return owner[_nearest(own, -np.inf, who, person, gallery, owner, shown)] == owner[person]

    compare(
        answer,
        found,
        *cases,
        mistakes=[
            ("nothing is changed yet: it does what `broken_found` does.", by_index(lambda *_: False)),
            (
                "the reference that the model was given is still in the gallery, and a copy of it is matched to it. "
                "For each picture, leave out its own reference.",
                masked(lambda *_: False),
            ),
            (
                "the reference is left out now, but the *place* of the nearest picture is still compared with the "
                "number of the person. There are several pictures of a person: `owner` says who is on each.",
                by_index(own),
            ),
            (
                "`person` is the number of a person already; `owner[person]` says who is on the picture at that "
                "*place*.",
                owner_of_person,
            ),
            (
                "all pictures of the right person are left out, so nobody can be found. Leave out only the reference.",
                masked(lambda person, owner, *_: person == owner),
            ),
            (
                "the references of *all* pictures are left out for each. Those of other people must stay, because a "
                "picture can be mistaken for them: leave out only its own.",
                masked(lambda person, owner, shown, place, all_shown: np.isin(place, all_shown)),
            ),
            (
                "the reference's cosine was set to 0, which is the largest where all others are below 0. Take "
                "−infinity.",
                masked(own, value=0.0),
            ),
            (
                "after a picture is cut out of the gallery, those behind it move up by one place, and `owner` no "
                "longer fits: cut it too, or hide the picture instead of cutting it.",
                cut_out,
            ),
            ("this is a share. Return which pictures are right, (M,).", lambda *case: found(*case).mean()),
        ],
    )


def _nearest(hide: Callable, value: float, who, person, gallery, owner, shown) -> np.ndarray:
    """The index in the gallery of each picture's nearest, int (M,), after the cosines that `hide` names get a value."""
    hidden = hide(person[:, None], owner[None], shown[:, None], np.arange(len(gallery))[None], shown)
    return np.where(hidden, value, who @ gallery.T).argmax(axis=1)


check_found = Exercise(
    "10.6",
    "found",
    "Too good to be true",
    "repair",
    difficulty=3,
    minutes=15,
    points=3,
    purpose="Most leaks of evaluations are of this kind: the picture to be found is itself in the gallery.",
    reference=found,
    test=_test_found,
    hints=(
        "One fault favours copies, the other penalises all other pictures. What is nearest to a copy? And of what is "
        "the number `nearest` the index?",
        "Before `argmax`, set the cosine of each row at `shown` to the lowest possible value; after it, look up in "
        "`owner` who is on the nearest picture.",
    ),
)

# --- 10.7 ahead ------------------------------------------------------------------------------------------------------


def ahead(
    ours: Sequence[float], theirs: Sequence[float], draws: int = 2000, seed: int = 0
) -> tuple[float, float, float]:
    """The mean of ours minus theirs of the same N people, and the ends of its 95 % interval by the paired bootstrap."""
    ours_of, theirs_of = (bootstrap.ratio(np.asarray(values)) for values in (ours, theirs))
    gap = bootstrap.difference(ours_of, theirs_of, len(ours), draws, seed)
    return gap["value"], gap["low"], gap["high"]


def _test_ahead(answer: Callable) -> None:
    rng = np.random.default_rng(4)
    person = rng.random(50)
    ours, theirs = ((person + shift + rng.normal(0, 0.08, 50)).tolist() for shift in (0.06, 0.0))
    got, want = (_numbers(function(list(ours), list(theirs), 6000, 7), 3, "ahead") for function in (answer, ahead))
    if not _close(got, want):
        if _close(-got[[0, 2, 1]], want) or _close(-got, want):
            raise Wrong("the sign is wrong: ours minus theirs, so that a positive number means that ours is ahead.")
        if _close(got[[1, 0, 2]], want) or _close(got[[2, 0, 1]], want):
            raise Wrong("the order is: mean, low end, high end.")
        again = np.random.default_rng(5)
        one, other = (np.asarray(values)[again.integers(0, 50, (6000, 50))].mean(axis=1) for values in (ours, theirs))
        (low, high), (their_low, their_high) = _of_means(one), _of_means(other)
        gap = np.asarray(ours) - np.asarray(theirs)
        for message, ends in (
            (
                "the people of each model are drawn separately. Draw *once*, and take the same people of both: that "
                "makes it a paired comparison.",
                _of_means(one - other),
            ),
            (
                "the ends of two intervals are subtracted, low from low and high from high. Take the difference of "
                "each person first.",
                (low - their_low, high - their_high),
            ),
            (
                "the ends of two intervals are subtracted crosswise, which is far too wide. Take the difference of "
                "each person first.",
                (low - their_high, high - their_low),
            ),
            (
                "these are percentiles of the people's differences. The interval is of their *mean*, over resampled "
                "people.",
                _of_means(gap),
            ),
        ):
            if _close(got, np.array([want[0], *ends])):
                raise Wrong(message)
        raise Wrong(
            f"{got[0]:.3f} [{got[1]:.3f}, {got[2]:.3f}] came back; expected is about {want[0]:.3f} "
            f"[{want[1]:.3f}, {want[2]:.3f}]."
        )
    if abs(got[0] - want[0]) > 1e-9:
        raise Wrong(
            "the interval is right. The first number is the mean difference of the people as they are, not of "
            "resampled ones."
        )
    if not np.array_equal(got, answer(list(ours), list(theirs), 6000, 7)):
        raise Wrong(
            "right, but the same `seed` gives another interval each time: make the generator inside the function, from "
            "`seed`."
        )
    few, again, other = (_numbers(answer(list(ours), list(theirs), 50, seed), 3, "ahead") for seed in (7, 7, 8))
    if not np.array_equal(few, again):
        raise Wrong("the numbers are right, but the same `seed` gives others each time: pass it on to `interval`.")
    if np.array_equal(few, other):
        raise Wrong("the numbers are right, but `seed` is not used: pass it on to `interval`.")
    _, low, high = _numbers(answer(list(ours), list(theirs), 1, 0), 3, "ahead")
    if low != high:
        raise Wrong("the numbers are right, but `draws` is not used: with a single draw both ends are equal.")


check_ahead = Exercise(
    "10.7",
    "ahead",
    "Person by person",
    "implement",
    difficulty=2,
    minutes=10,
    points=2,
    purpose="It shows differences that two separate intervals hide, and needs only the same people for both models.",
    reference=ahead,
    test=_test_ahead,
    hints=(
        "Take the difference of each person first. Then there is one list of N numbers, and `interval` works on such a "
        "list.",
        "`gap = np.array(ours) - np.array(theirs)`, and the ends are `interval(gap, draws, seed)`.",
    ),
)
