"""The rival of joint attention: decoupled cross-attention (IP-Adapter, Ye et al. 2023, arXiv 2308.06721).

Image tokens attend to themselves, to the identity's tokens and to the expression's, by one question and three softmaxes,
and what they saw is added up. The condition's tokens only lend keys and values: they neither see the image nor each
other, and stay the same from block to block. Everything else is the MM-DiT's.

Letters: B images, L image tokens, I tokens of the identity, E tokens of the expression, C channels of a token.
"""

from torch import Tensor, nn

from gen_affect_lib.model.attention import LentProjections, attend
from gen_affect_lib.model.mmdit import MMDiT, Stream


class DecoupledBlock(nn.Module):
    """One image stream, and for each source of the condition its own keys and values."""

    def __init__(self, dim: int, num_heads: int, qk_norm: str | None, identity_tokens: int):
        super().__init__()
        self.identity_tokens = identity_tokens
        self.image = Stream(dim, num_heads, qk_norm)
        self.identity = LentProjections(dim, num_heads, qk_norm)
        self.expression = LentProjections(dim, num_heads, qk_norm)

    def forward(self, image: Tensor, condition: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
        """Image tokens (B, L, C), condition tokens (B, I + E, C), conditioning vector (B, C) to both kinds of tokens."""
        own, mods = self.image.before(image, c)
        who, what = condition.tensor_split([self.identity_tokens], dim=1)  # (B, I, C), (B, E, C)
        seen = attend(*own)
        for lent in (self.identity.qkv(who), self.expression.qkv(what)):
            seen = seen + attend(own.query, lent.key, lent.value)
        return self.image.after(image, seen, mods), condition


class DecoupledDiT(MMDiT):
    """As the MM-DiT, with `DecoupledBlock`s. It wants the condition's tokens side by side, as the fusion
    "concatenation" gives them, those of the identity first, `identity_tokens` of them."""

    def __init__(self, identity_tokens: int = 6, **sizes):
        super().__init__(**sizes)
        dim = sizes["num_attention_heads"] * sizes["attention_head_dim"]
        qk_norm = sizes.get("qk_norm", "rms_norm")
        self.blocks = nn.ModuleList(
            DecoupledBlock(dim, sizes["num_attention_heads"], qk_norm, identity_tokens) for _ in self.blocks
        )
        self.init_weights()
