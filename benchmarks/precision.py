"""What bf16 weights lose: the share of weights that one step of AdamW leaves exactly as they were."""

import torch
from measure import RESULTS
from teacher import Vocabulary

from rklu_lib import models, profiles, records


def unchanged(dtype, lr):
    profile = profiles.profile("mini", hidden_size=512, intermediate_size=1376, n_heads=8)
    model = models.create(profile, Vocabulary(profile.vocab_size), 0).to(getattr(torch, dtype))
    before = [p.detach().clone() for p in model.parameters() if p.dim() == 2]
    optimizer = torch.optim.AdamW(model.parameters(), lr=lr, weight_decay=profile.weight_decay)
    ids = torch.randint(3, profile.vocab_size, (8, 64), generator=torch.Generator().manual_seed(0))
    model(input_ids=ids, labels=ids).loss.backward()
    moved = [p.grad != 0 for p in model.parameters() if p.dim() == 2]
    optimizer.step()
    after = [p for p in model.parameters() if p.dim() == 2]
    same = sum(int((a == b)[m].sum()) for a, b, m in zip(before, after, moved, strict=True))
    return same / sum(int(m.sum()) for m in moved)


if __name__ == "__main__":
    rows = [
        {"dtype": dtype, "lr": lr, "unchanged": unchanged(dtype, lr)}
        for dtype in ("bfloat16", "float32")
        for lr in (1e-5, 1e-4, 1e-3)
    ]
    for row in rows:
        print(row)
    content = {"machine": records.machine(), "torch": torch.__version__, "code": records.code_version()}
    records.write_json(RESULTS / "precision.json", content | {"rows": rows})
