"""Answers to the exercises of notebook 10, as students write them."""

import numpy as np

from gen_affect_lib.avatars import EMOTIONS
from gen_affect_lib.avatars.emotions import branches, groups
from tests.course.checks.answers import Answers

GROUPS = branches()[25]


def places(words):
    return np.array([EMOTIONS.index(word) for word in words])


# --- right_group ---


def by_a_matrix(probabilities, asked):
    member = (GROUPS[:, None] == np.arange(25)).astype(float)  # (135, 25)
    return (probabilities @ member).argmax(1) == GROUPS[places(asked)]


def by_names(probabilities, asked):
    of_word = {word: name for name, words in groups().items() for word in words}
    right = []
    for row, word in zip(probabilities, asked):
        total = {}
        for other, p in zip(EMOTIONS, row):
            total[of_word[other]] = total.get(of_word[other], 0) + p
        right.append(max(total, key=total.get) == of_word[word])
    return np.array(right)


def best_word_first(probabilities, asked):
    best = [EMOTIONS[k] for k in probabilities.argmax(1)]
    return GROUPS[places(best)] == GROUPS[places(asked)]


def mean_of_each_group(probabilities, asked):
    table = np.stack([probabilities[:, GROUPS == g].mean(1) for g in range(25)], 1)
    return table.argmax(1) == GROUPS[places(asked)]


def right_words(probabilities, asked):
    return np.array([EMOTIONS[row.argmax()] == word for row, word in zip(probabilities, asked)])


def right_share(probabilities, asked):
    return by_a_matrix(probabilities, asked).mean()


def the_groups(probabilities, asked):
    return np.stack([probabilities[:, GROUPS == g].sum(1) for g in range(25)], 1).argmax(1)


def right_families(probabilities, asked):
    families = branches()[6]
    return np.stack([probabilities[:, families == f].sum(1) for f in range(6)], 1).argmax(1) == families[places(asked)]


# --- interval ---


def all_at_once(values, draws=500, seed=0):
    rng = np.random.default_rng(seed)
    people = values.reshape(len(values), -1).mean(1)
    chosen = rng.choice(len(people), size=(draws, len(people)))
    return np.quantile(people[chosen].mean(1), [0.025, 0.975])


def by_sorting(values, draws=500, seed=0):
    rng = np.random.RandomState(seed)
    means = sorted(float(np.mean([values[rng.randint(len(values))] for _ in values])) for _ in range(draws))
    return means[int(0.025 * draws)], means[min(int(0.975 * draws), draws - 1)]


def over_pictures(values, draws=500, seed=0):
    rng = np.random.default_rng(seed)
    flat = values.ravel()
    return np.percentile([flat[rng.integers(0, flat.size, flat.size)].mean() for _ in range(draws)], (2.5, 97.5))


def shuffled(values, draws=500, seed=0):
    rng = np.random.default_rng(seed)
    return np.percentile([values[rng.permutation(len(values))].mean() for _ in range(draws)], (2.5, 97.5))


def of_the_people(values, draws=500, seed=0):
    return np.percentile(values.reshape(len(values), -1).mean(1), (2.5, 97.5))


def of_means(ends=(2.5, 97.5), rng_of=np.random.default_rng, take=None):
    def answer(values, draws=500, seed=0):
        rng = rng_of(seed)
        return np.percentile(
            [values[rng.integers(0, len(values), len(values))].mean() for _ in range(take or draws)], ends
        )

    return answer


def other_order(values, draws=500, seed=0):
    low, high = all_at_once(values, draws, seed)
    return high, low


# --- concordance ---


def from_pearson(read, true):
    r = np.corrcoef(read, true)[0, 1]
    return 2 * r * read.std() * true.std() / (read.std() ** 2 + true.std() ** 2 + (read.mean() - true.mean()) ** 2)


def from_squares(read, true):
    off = ((read - true) ** 2).mean()
    return 1 - off / (read.var() + true.var() + (read.mean() - true.mean()) ** 2)


def pearson(read, true):
    return ((read - read.mean()) * (true - true.mean())).mean() / (read.std() * true.std())


def without_means(read, true):
    return 2 * np.mean((read - read.mean()) * (true - true.mean())) / (read.var() + true.var())


def halved(read, true):
    return from_squares(read, true) / 2


def as_numpy_counts(read, true):
    return 2 * np.cov(read, true)[0, 1] / (np.var(read) + np.var(true) + (read.mean() - true.mean()) ** 2)


def means_not_squared(read, true):
    c = np.mean((read - read.mean()) * (true - true.mean()))
    return 2 * c / (read.var() + true.var() + abs(read.mean() - true.mean()))


# --- found ---


def one_at_a_time(who, person, gallery, owner, shown):
    right = np.zeros(len(who), bool)
    for m in range(len(who)):
        left = [k for k in range(len(gallery)) if k != shown[m]]
        best = max(left, key=lambda k: who[m] @ gallery[k])
        right[m] = owner[best] == person[m]
    return right


def by_where(who, person, gallery, owner, shown):
    hidden = np.eye(len(gallery), dtype=bool)[shown]
    return person == owner[np.where(hidden, -2, who @ gallery.T).argmax(-1)]


def unchanged(who, person, gallery, owner, shown):
    return (who @ gallery.T).argmax(axis=1) == person


def whose_only(who, person, gallery, owner, shown):
    return owner[(who @ gallery.T).argmax(axis=1)] == person


def hidden_only(who, person, gallery, owner, shown):
    table = who @ gallery.T
    table[range(len(who)), shown] = -9
    return table.argmax(axis=1) == person


def hidden_as_zero(who, person, gallery, owner, shown):
    table = who @ gallery.T
    table[range(len(who)), shown] = 0
    return owner[table.argmax(axis=1)] == person


def nobody_left(who, person, gallery, owner, shown):
    table = who @ gallery.T
    table[person[:, None] == owner] = -np.inf
    return owner[table.argmax(axis=1)] == person


def all_references_out(who, person, gallery, owner, shown):
    left = np.setdiff1d(np.arange(len(gallery)), shown)
    return owner[left][(who @ gallery[left].T).argmax(axis=1)] == person if len(left) else np.zeros(len(who), bool)


def cut_but_not_the_owners(who, person, gallery, owner, shown):
    return np.array([owner[(np.delete(gallery, s, 0) @ w).argmax()] == p for w, p, s in zip(who, person, shown)])


# --- ahead ---


def by_choice(ours, theirs, draws=2000, seed=0):
    rng = np.random.default_rng(seed)
    gap = np.subtract(ours, theirs)
    low, high = np.quantile([rng.choice(gap, len(gap)).mean() for _ in range(draws)], (0.025, 0.975))
    return gap.mean(), low, high


def same_people_of_both(ours, theirs, draws=2000, seed=0):
    rng, a, b = np.random.default_rng(seed), np.array(ours), np.array(theirs)
    means = []
    for _ in range(draws):
        people = rng.integers(0, len(a), len(a))
        means.append(a[people].mean() - b[people].mean())
    return [np.mean(a) - np.mean(b), *np.percentile(means, [2.5, 97.5])]


def people_of_their_own(ours, theirs, draws=2000, seed=0):
    rng, a, b = np.random.default_rng(seed), np.array(ours), np.array(theirs)
    means = [rng.choice(a, len(a)).mean() - rng.choice(b, len(b)).mean() for _ in range(draws)]
    return a.mean() - b.mean(), *np.percentile(means, (2.5, 97.5))


def theirs_minus_ours(ours, theirs, draws=2000, seed=0):
    return by_choice(theirs, ours, draws, seed)


def ends_subtracted(ours, theirs, draws=2000, seed=0):
    a, b = all_at_once(np.array(ours), draws, seed), all_at_once(np.array(theirs), draws, seed)
    return np.mean(ours) - np.mean(theirs), a[0] - b[1], a[1] - b[0]


def of_the_differences(ours, theirs, draws=2000, seed=0):
    gap = np.subtract(ours, theirs)
    return gap.mean(), *np.percentile(gap, (2.5, 97.5))


def ends_first(ours, theirs, draws=2000, seed=0):
    mean, low, high = by_choice(ours, theirs, draws, seed)
    return low, mean, high


def another_each_time(ours, theirs, draws=2000, seed=0):
    return by_choice(ours, theirs, draws, None)


ANSWERS = {
    "right_group": Answers(
        right=[by_a_matrix, by_names],
        wrong=[
            (best_word_first, "likeliest *word*"),
            (mean_of_each_group, "were averaged"),
            (right_words, "of 135"),
            (right_families, "of 6"),
            (right_share, "one number"),
            (the_groups, "these are the likeliest groups"),
        ],
    ),
    "times_wider": Answers(
        right=[lambda: 10, lambda: (1000 / 10) ** 0.5],
        wrong=[
            (lambda: 100, "the *root*"),
            (lambda: 1, "only ten draws"),
            (lambda: 10**0.5, "but of what"),
            (lambda: 0.1, "the other way around"),
            (lambda: 31.6, "a single draw"),
            (lambda: "wider", "return a number"),
        ],
    ),
    "interval": Answers(
        right=[all_at_once, by_sorting],
        wrong=[
            (over_pictures, "are not independent"),
            (shuffled, "*with* replacement"),
            (of_the_people, "percentiles of the people"),
            (of_means((0.025, 0.975)), "takes percent"),
            (of_means((5, 95)), "middle 90 %"),
            (of_means((0, 100)), "the largest mean"),
            (other_order, "changed places"),
            (of_means(rng_of=lambda seed: np.random.default_rng()), "another one each time"),
            (of_means(rng_of=lambda seed: np.random.default_rng(0)), "`seed` is not used"),
            (of_means(take=3000), "`draws` is not used"),
        ],
    ),
    "concordance": Answers(
        right=[from_pearson, from_squares],
        wrong=[
            (pearson, "Pearson"),
            (without_means, "two means is missing"),
            (halved, "the factor 2 is missing"),
            (as_numpy_counts, "`np.cov` divides"),
            (means_not_squared, "not squared"),
        ],
    ),
    "unsupported_claim": Answers(
        right=[lambda: "c", lambda: "C "],
        wrong=[(lambda: "a", "the first rows"), (lambda: "b", "found among"), (lambda: 3, "return one of")],
    ),
    "found": Answers(
        right=[one_at_a_time, by_where],
        wrong=[
            (unchanged, "nothing is changed"),
            (whose_only, "still in the gallery"),
            (hidden_only, "the *place*"),
            (hidden_as_zero, "−infinity"),
            (nobody_left, "nobody can be found"),
            (all_references_out, "of *all* pictures"),
            (cut_but_not_the_owners, "move up by one"),
        ],
    ),
    "ahead": Answers(
        right=[by_choice, same_people_of_both],
        wrong=[
            (people_of_their_own, "Draw *once*"),
            (theirs_minus_ours, "the sign"),
            (ends_subtracted, "crosswise"),
            (of_the_differences, "percentiles of the people's"),
            (ends_first, "the order is"),
            (another_each_time, "another interval each time"),
        ],
    ),
}
