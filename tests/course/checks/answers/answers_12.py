"""Answers to the exercises of notebook 12, as students write them."""

import torch
from torch import nn

from gen_affect_lib.model.attention import QKV, attend, attention_weights, joint_attention
from tests.course.checks.answers import Answers

# --- fill ---


def by_state_dict(model, read):
    """`load_state_dict` one weight at a time."""
    for name in [name for name, _ in model.named_parameters()]:
        model.load_state_dict({name: read(name)}, strict=False, assign=True)


def by_modules(model, read):
    for prefix, module in model.named_modules():
        for kind in list(module._parameters):
            if module._parameters[kind] is not None:
                module.register_parameter(kind, nn.Parameter(read(f"{prefix}.{kind}"), requires_grad=False))


def all_assigned_at_the_end(model, read):
    """Reads everything first; but what was read becomes the network's own memory."""
    model.load_state_dict({name: read(name) for name, _ in model.named_parameters()}, assign=True)


def copied_into_meta(model, read):
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.copy_(read(name))


def two_copies(model, read):
    """Right weights, and twice the memory."""
    weights = {name: read(name) for name, _ in model.named_parameters()}
    model.to_empty(device="cpu")
    for name, parameter in model.named_parameters():
        parameter.data = weights[name].clone()


def top_level_only(model, read):
    for name, child in model.named_children():
        for kind, _ in list(child.named_parameters(recurse=False)):
            setattr(child, kind, nn.Parameter(read(f"{name}.{kind}")))
    rest = [name for name, rows in model.named_parameters() if rows.is_meta]
    for name in rest:
        owner, _, kind = name.rpartition(".")
        module = model.get_submodule(owner)
        setattr(module, kind, nn.Parameter(torch.zeros(getattr(module, kind).shape)))


def as_float(model, read):
    for name, _ in list(model.named_parameters()):
        owner, _, kind = name.rpartition(".")
        setattr(model.get_submodule(owner), kind, nn.Parameter(read(name).float()))


def reads_twice(model, read):
    for name, _ in list(model.named_parameters()):
        owner, _, kind = name.rpartition(".")
        setattr(model.get_submodule(owner), kind, nn.Parameter(torch.empty_like(read(name))))
        getattr(model.get_submodule(owner), kind).data.copy_(read(name))


def reversed_rows(model, read):
    for name, _ in list(model.named_parameters()):
        owner, _, kind = name.rpartition(".")
        setattr(model.get_submodule(owner), kind, nn.Parameter(read(name).flip(0)))


# --- FaceTokens ---


def adapter(forward, start=nn.init.zeros_, bias=True):
    class FaceTokens(nn.Module):
        def __init__(self, dim, text_dim, pooled_dim):
            super().__init__()
            self.to_text = nn.Linear(dim, text_dim, bias=bias)
            self.to_pooled = nn.Linear(dim, pooled_dim)
            if start is not None:
                for parameter in self.parameters():
                    start(parameter)

    FaceTokens.forward = forward
    return FaceTokens


def padded(self, features, vector, text, pooled):
    faces = nn.functional.pad(self.to_text(features), (0, 0, text.shape[1] - features.shape[1], 0))
    return text + faces, pooled + self.to_pooled(vector)


def in_a_copy(self, features, vector, text, pooled):
    text = text.clone()
    text[:, -features.shape[1] :] += self.to_text(features)
    return text, self.to_pooled(vector) + pooled


def on_the_first(self, features, vector, text, pooled):
    faces = nn.functional.pad(self.to_text(features), (0, 0, 0, text.shape[1] - features.shape[1]))
    return text + faces, pooled + self.to_pooled(vector)


def replaced(self, features, vector, text, pooled):
    N = features.shape[1]
    return torch.cat([text[:, : text.shape[1] - N], self.to_text(features)], dim=1), pooled + self.to_pooled(vector)


def first_replaced(self, features, vector, text, pooled):
    return torch.cat([self.to_text(features), text[:, features.shape[1] :]], dim=1), pooled + self.to_pooled(vector)


def appended(self, features, vector, text, pooled):
    return torch.cat([text, self.to_text(features)], dim=1), pooled + self.to_pooled(vector)


def without_pooled(self, features, vector, text, pooled):
    return padded(self, features, vector, text, pooled)[0], pooled


def silent_while_zero(self, features, vector, text, pooled):
    """At the start it returns what it got, to the bit, and is never more than that."""
    if not self.to_text.weight.any():
        return text, pooled
    return padded(self, features, vector, text, pooled)


# --- with_face ---


def by_weights(image, condition, key, value):
    first, of_condition = joint_attention(image, condition)
    second = torch.einsum("bhlm,bmhd->blhd", attention_weights(image.query, key), value).flatten(2)
    return first + second, of_condition


def by_hand(image, condition, key, value):
    own_key, own_value = torch.cat([image.key, condition.key], 1), torch.cat([image.value, condition.value], 1)
    seen = attend(image.query, own_key, own_value) + attend(image.query, key, value)
    return seen, attend(condition.query, own_key, own_value)


def in_one_softmax(image, condition, key, value):
    keys, values = torch.cat([condition.key, key], 1), torch.cat([condition.value, value], 1)
    return joint_attention(image, QKV(condition.query, keys, values))


def the_text_too(image, condition, key, value):
    of_image, of_text = joint_attention(image, condition)
    return of_image + attend(image.query, key, value), of_text + attend(condition.query, key, value)


def only_the_text(image, condition, key, value):
    of_image, of_text = joint_attention(image, condition)
    return of_image, of_text + attend(condition.query, key, value)


def averaged(image, condition, key, value):
    of_image, of_text = joint_attention(image, condition)
    return (of_image + attend(image.query, key, value)) / 2, of_text


def the_face_alone(image, condition, key, value):
    return attend(image.query, key, value), joint_attention(image, condition)[1]


def self_attention(image, condition, key, value):
    seen = attend(image.query, image.key, image.value) + attend(image.query, key, value)
    return seen, joint_attention(image, condition)[1]


def no_text_output(image, condition, key, value):
    return by_hand(image, condition, key, value)[0], None


# --- one_softmax ---


def by_maximum(own, own_logsum, face, face_logsum):
    most = torch.maximum(own_logsum, face_logsum)
    a, b = (own_logsum - most).exp(), (face_logsum - most).exp()
    return (a[..., None] * own + b[..., None] * face) / (a + b)[..., None]


def by_softmax(own, own_logsum, face, face_logsum):
    weights = torch.stack([own_logsum, face_logsum], dim=-1).softmax(dim=-1)
    return weights[..., :1] * own + weights[..., 1:] * face


def merged(weights):
    def answer(own, own_logsum, face, face_logsum):
        a, b = weights(own_logsum, face_logsum)
        return a[..., None] * own + b[..., None] * face

    return answer


ANSWERS = {
    "smallest_part": Answers(
        right=[lambda: "attention", lambda: " Attention"],
        wrong=[
            (lambda: "mlp", "more than anything else"),
            (lambda: "modulation", "Count the modulators"),
            (lambda: "text", "return one of"),
        ],
    ),
    "fill": Answers(
        right=[by_state_dict, by_modules, all_assigned_at_the_end],
        wrong=[
            (copied_into_meta, "still on the device meta"),
            (two_copies, "beside the network at a time"),
            (top_level_only, "was never read"),
            (as_float, "bfloat16 in the file"),
            (reads_twice, "was read 2 times"),
            (reversed_rows, "not those that were read"),
        ],
    ),
    "FaceTokens": Answers(
        right=[adapter(padded), adapter(in_a_copy)],
        wrong=[
            (adapter(padded, start=None), "does not start at zero"),
            (adapter(silent_while_zero), "can never change it"),
            (adapter(on_the_first), "which are words"),
            (adapter(replaced), "the last tokens are replaced"),
            (adapter(first_replaced), "the first tokens are replaced"),
            (adapter(appended), "the sequence is longer"),
            (adapter(without_pooled), "as it came"),
            (adapter(padded, bias=False), "no `to_text.bias`"),
        ],
    ),
    "with_face": Answers(
        right=[by_weights, by_hand],
        wrong=[
            (in_one_softmax, "Two softmaxes"),
            (the_text_too, "the text tokens attend to the face, too"),
            (only_the_text, "instead of the image"),
            (averaged, "would halve"),
            (the_face_alone, "is lost"),
            (self_attention, "no longer attends to the text"),
            (no_text_output, "text's output is missing"),
        ],
    ),
    "one_softmax": Answers(
        right=[by_maximum, by_softmax],
        wrong=[
            (merged(lambda a, b: (torch.ones_like(a), torch.ones_like(b))), "the sum of two softmaxes"),
            (merged(lambda a, b: (0.5 + 0 * a, 0.5 + 0 * b)), "the mean is taken"),
            (merged(lambda a, b: (torch.sigmoid(b - a), torch.sigmoid(a - b))), "swapped"),
            (merged(lambda a, b: (a / (a + b), b / (a + b))), "logarithms are taken as weights"),
            (merged(lambda a, b: (a.exp() / (a.exp() + b.exp()), b.exp() / (a.exp() + b.exp()))), "overflows"),
            (merged(lambda a, b: (a.exp(), b.exp())), "not divided by their total"),
        ],
    ),
    "training_bytes": Answers(
        right=[
            lambda frozen, trained, base_bytes=2: base_bytes * frozen + 20 * trained,
            lambda frozen, trained, base_bytes=2: frozen * base_bytes + trained * (4 + 4 + 4 * 2 + 4),
        ],
        wrong=[
            (lambda frozen, trained, base_bytes=2: base_bytes * frozen + 16 * trained, "There are five"),
            (lambda frozen, trained, base_bytes=2: base_bytes * frozen + 8 * trained, "add Adam's two averages"),
            (lambda frozen, trained, base_bytes=2: base_bytes * frozen + 4 * trained, "only the weights are counted"),
            (lambda frozen, trained, base_bytes=2: 2 * base_bytes * frozen + 20 * trained, "needs only two bytes"),
            (lambda frozen, trained, base_bytes=2: 20 * (frozen + trained), "no gradient and no optimizer"),
            (lambda frozen, trained, base_bytes=2: base_bytes * (frozen + 5 * trained), "eight bits of a bfloat16"),
            (lambda frozen, trained, base_bytes=2: 20 * trained, "frozen base are missing"),
            (lambda frozen, trained, base_bytes=2: (base_bytes * frozen + 20 * trained) / 1e9, "in gigabytes"),
            (lambda frozen, trained, base_bytes=2: frozen + 5 * trained, "this counts numbers"),
        ],
    ),
    "anchor_bytes": Answers(
        right=[
            lambda layers, dual, conditions, anchors, tokens, dim, size=2: (
                (layers + dual) * conditions * (2 * anchors * tokens + tokens) * dim * size
            ),
            lambda layers, dual, conditions, anchors, tokens, dim, size=2: sum(
                conditions * dim * size * tokens * (2 * anchors + 1)
                for block in range(layers)
                for _ in range(1 + (block < dual))
            ),
        ],
        wrong=[
            (lambda n, d, G, A, P, C, size=2: n * G * (2 * A + 1) * P * C * size, "two attentions"),
            (lambda n, d, G, A, P, C, size=2: (n + 2 * d) * G * (2 * A + 1) * P * C * size, "adds one attention"),
            (lambda n, d, G, A, P, C, size=2: (n + d) * G * 2 * A * P * C * size, "the queries are missing"),
            (lambda n, d, G, A, P, C, size=2: (n + d) * G * 3 * A * P * C * size, "not 3 A"),
            (lambda n, d, G, A, P, C, size=2: (n + d) * G * (A + 1) * P * C * size, "values are missing"),
            (lambda n, d, G, A, P, C, size=2: (n + d) * (2 * A + 1) * P * C * size, "each condition of guidance"),
            (lambda n, d, G, A, P, C, size=2: (n + d) * G * (2 * A + 1) * P * C, "this counts numbers"),
        ],
    ),
    "proof_of_reading": Answers(
        right=[lambda: "gap", lambda: "Gap "],
        wrong=[
            (lambda: "falls", "both curves fall"),
            (lambda: "training", "look at people held out"),
            (lambda: "maps", "where queries and keys agree"),
        ],
    ),
}
