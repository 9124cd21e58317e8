from attnscope.testing import AttentionBattery

from .spec import QKNormSpec

S = {"dim": 12, "heads": 3, "tokens": 10}


class TestBattery(AttentionBattery):
    specs = (
        QKNormSpec(**S),
        QKNormSpec(**S, batch=3),
        QKNormSpec(**S, batch=2, qkv_bias=False),
        QKNormSpec(dim=12, heads=4, kv_heads=2, tokens=10, batch=2),
        QKNormSpec(**S, batch=3, kv_heads=1),
        QKNormSpec(**S, dtype="float64"),
        QKNormSpec(**S, dtype="bfloat16"),
        QKNormSpec(**S, batch=2, kernel="sdpa"),
        QKNormSpec(**S, batch=2, kernel="math"),
        QKNormSpec(**S, attn_drop=0.1, proj_drop=0.1),
        QKNormSpec(dim=9, heads=3, tokens=2, attn_drop=0.1, kernel="sdpa"),
        QKNormSpec(kernel="sdpa"),
        QKNormSpec(),
    )
