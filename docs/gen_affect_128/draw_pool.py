"""Draws people into memory-mapped arrays in many processes: python draw_pool.py FOLDER PEOPLE PICTURES VALIDATION_PEOPLE.

FOLDER/train_images.npy uint8 (PEOPLE * PICTURES, 128, 128, 3), train_shown.npy float32 (…, 48), the same for
validation, and FOLDER/done.npy uint8, one a chunk of 32 people: validation's chunks first. Runs on after the caller.
"""
import os, sys, time
os.environ["OMP_NUM_THREADS"] = "1"
from multiprocessing import get_context
import numpy as np
CHUNK, SIZE = 32, 128


def represent(vectors):
    """`ExpressionReading.of_vectors(vectors).representation`, without loading torch in every process: float32 (M, 48)."""
    from gen_affect_lib.encoders.affect import class_logits, log_likelihoods, shares, word_affect
    vectors = vectors.astype(np.float64)
    logits = log_likelihoods(vectors)
    affect = shares(logits)[:, :-1] @ word_affect()
    logits = logits.astype(np.float32).astype(np.float64)
    logits = logits - np.logaddexp.reduce(logits, axis=1)[:, None]
    return np.concatenate([vectors, affect, np.exp(class_logits(logits[:, :-1], 25))], axis=1).astype(np.float32)


def chunk(job):
    number, split, start, people, pictures, folder = job
    from gen_affect_lib.avatars import Appearance, Avatar, Expression, Identity
    first = 0 if split == "train" else 1_000_000
    images = np.load(f"{folder}/{split}_images.npy", mmap_mode="r+")
    shown = np.load(f"{folder}/{split}_shown.npy", mmap_mode="r+")
    vectors, last = [], min(start + CHUNK, people)
    for n in range(start, last):
        identity = Identity.sample(first + n)
        for k in range(pictures):
            seed = (first + n) * 1000 + k
            expression = Expression.sample(seed)
            images[n * pictures + k] = Avatar(identity, expression, Appearance.sample(seed)).render(SIZE)
            vectors.append(expression.to_vector())
    shown[start * pictures : last * pictures] = represent(np.stack(vectors))
    done = np.load(f"{folder}/done.npy", mmap_mode="r+")
    done[number] = 1
    done.flush()


def main():
    folder, people, pictures, held_out = sys.argv[1], *map(int, sys.argv[2:5])
    workers = int(sys.argv[5]) if len(sys.argv) > 5 else os.cpu_count()
    os.makedirs(folder, exist_ok=True)
    jobs = []
    for split, count, per in (("validation", held_out, 4), ("train", people, pictures)):
        np.lib.format.open_memmap(f"{folder}/{split}_images.npy", "w+", np.uint8, (count * per, SIZE, SIZE, 3))
        np.lib.format.open_memmap(f"{folder}/{split}_shown.npy", "w+", np.float32, (count * per, 48))
        jobs += [(len(jobs) + i, split, start, count, per, folder) for i, start in enumerate(range(0, count, CHUNK))]
    import json
    with open(f"{folder}/sizes.json", "w") as file:
        json.dump({"train": pictures, "validation": 4}, file)
    np.lib.format.open_memmap(f"{folder}/done.npy.partial", "w+", np.uint8, (len(jobs),))
    os.replace(f"{folder}/done.npy.partial", f"{folder}/done.npy")
    begin = time.time()
    with get_context("fork").Pool(workers) as pool:
        for k, _ in enumerate(pool.imap(chunk, jobs, chunksize=1)):
            pass
    open(f"{folder}/finished", "w").write(f"{time.time() - begin:.1f} s for {people * pictures + held_out * 4} pictures")


if __name__ == "__main__":
    main()
