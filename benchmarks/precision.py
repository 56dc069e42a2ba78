"""What bf16 weights lose: the share of weights that an AdamW step leaves unchanged, and where 200 steps lead."""

import copy

import torch
from measure import RESULTS
from teacher import Vocabulary

from rklu_lib import models, profiles, records, training


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


def trained(dtype, optimizer, steps=200, lr=1e-5):
    """Return (mean loss of the last 8 steps, change of all weights), from a start that both dtypes hold exactly."""
    profile = profiles.profile("mini", hidden_size=64, intermediate_size=128, n_heads=4, n_layers=1)
    start = models.create(profile, Vocabulary(256), 0).bfloat16()
    model, losses = copy.deepcopy(start).to(dtype), []
    optimizer = optimizer(model, lr, profile.weight_decay)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, training.schedule(steps // 5, 5))
    for step in range(steps):
        ids = torch.randint(256, (4, 1), generator=torch.Generator().manual_seed(step % 8))
        ids = (ids + 7 * torch.arange(12)) % 256
        loss = model(input_ids=ids, labels=ids).loss
        loss.backward()
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    way = [(p.float() - q.float()).flatten() for p, q in zip(model.parameters(), start.parameters(), strict=True)]
    return sum(losses[-8:]) / 8, torch.cat(way).detach()


def followed():
    """Return the loss after bf16 training, and the distance to float32's weights as a share of float32's way."""
    plain = lambda model, lr, decay: torch.optim.AdamW(model.parameters(), lr=lr, weight_decay=decay)  # noqa: E731
    loss, way = trained(torch.float32, plain)
    rows = [{"weights": "float32", "optimiser": "AdamW", "loss": loss, "off": 0.0}]
    for name, optimizer in (("AdamW", plain), ("AdamW, compensated", training.adamw)):
        loss, other = trained(torch.bfloat16, optimizer)
        off = float((other - way).norm() / way.norm())
        rows.append({"weights": "bfloat16", "optimiser": name, "loss": loss, "off": off})
    return rows


if __name__ == "__main__":
    rows = [
        {"dtype": dtype, "lr": lr, "unchanged": unchanged(dtype, lr)}
        for dtype in ("bfloat16", "float32")
        for lr in (1e-5, 1e-4, 1e-3)
    ]
    kept = followed()
    for row in rows + kept:
        print(row)
    content = {"machine": records.machine(), "torch": torch.__version__, "code": records.code_version()}
    records.write_json(RESULTS / "precision.json", content | {"rows": rows, "followed": kept})
