"""Training steps of the TRM or HRM repository's own PyTorch code for puzzle_step.py; one JSON line.

Stands alone (torch and numpy). --reference is a checkout of github.com/SamsungSAILMontreal/TinyRecursiveModels (TRM) or
github.com/sapientinc/HRM; its model, loss head, embedding optimizer and EMA are imported as they are. Packages that it
asks for and that are missing get stand-ins: einops and pydantic with what it uses of them, flash_attn by PyTorch's
attention, adam_atan2 by PyTorch's fused AdamW.
"""

import argparse
import importlib
import importlib.util
import json
import sys
import time
import types
from pathlib import Path

import torch
import torch.nn.functional as F
from turns import resident_gb, steps_timed

MODELS = {  # by repository: module, class, and what is not the default of its configuration
    "trm": ("models.recursive_reasoning.trm", "TinyRecursiveReasoningModel_ACTV1", {"mlp_t": False}),
    "trm_mlp": ("models.recursive_reasoning.trm", "TinyRecursiveReasoningModel_ACTV1",
                {"mlp_t": True, "pos_encodings": "none"}),
    "hrm": ("models.hrm.hrm_act_v1", "HierarchicalReasoningModel_ACTV1", {}),
}  # fmt: skip


class BaseModel:
    """pydantic's, without checks: a field by keyword or its default; what has no field is left out."""

    def __init__(self, **given):
        for name in type(self).__annotations__:
            setattr(self, name, given[name] if name in given else getattr(type(self), name))


def rearrange(x, pattern: str):
    """einops's, for axes that change places, such as "B S H D -> B H S D"."""
    before, after = (side.split() for side in pattern.split("->"))
    return x.permute([before.index(name) for name in after])


def attend(q, k, v, causal: bool = False):
    """flash_attn's function: tokens before heads."""
    out = F.scaled_dot_product_attention(*(a.transpose(1, 2) for a in (q, k, v)), is_causal=causal)
    return out.transpose(1, 2).contiguous()


def stand_in() -> None:
    """Puts stand-ins in the place of missing packages."""
    for package, held in {"einops": {"rearrange": rearrange}, "pydantic": {"BaseModel": BaseModel}, "flash_attn": {
            "flash_attn_func": attend}}.items():  # fmt: skip
        if package not in sys.modules and importlib.util.find_spec(package) is None:
            module = types.ModuleType(package)
            vars(module).update(held)
            sys.modules[package] = module


def loaded(reference: Path, name: str, options: dict):
    """The repository's model in its loss head."""
    stand_in()
    sys.path.insert(0, str(reference))
    module, kind, changed = MODELS[name]
    model = getattr(importlib.import_module(module), kind)({**options, **changed})
    return importlib.import_module("models.losses").ACTLossHead(model, "stablemax_cross_entropy")


def trained(given: argparse.Namespace) -> dict:
    """Training steps on one batch that is on the device: forward, backward, both optimizers, EMA."""
    device = torch.device("cuda" if given.device == "gpu" else "cpu")
    options = json.loads(given.options)
    with device:
        head = loaded(given.reference, given.model, options)
        x = torch.randint(1, options["vocab_size"], (given.batch, options["seq_len"]), dtype=torch.int32)
        label = torch.randint(2, options["vocab_size"], x.shape, dtype=torch.int32)
        batch = {"inputs": x, "labels": label, "puzzle_identifiers": torch.zeros(given.batch, dtype=torch.int32)}
        carry = head.initial_carry(batch)
    head.train()
    sparse = importlib.import_module("models.sparse_embedding").CastedSparseEmbeddingSignSGD_Distributed
    optimizers = [
        sparse(head.model.puzzle_emb.buffers(), world_size=1, lr=1e-4, weight_decay=1.0),
        torch.optim.AdamW(head.parameters(), lr=1e-4, weight_decay=1.0, betas=(0.9, 0.95), fused=True),
    ]
    averages = [p.detach().clone() for p in head.parameters()]
    inner = torch.compile(head) if given.compile else head

    def turn(steps: int) -> float:
        nonlocal carry
        begin = time.perf_counter()
        for _ in range(steps):
            carry, loss, _, _, _ = inner(carry=carry, batch=batch, return_keys=[])
            (loss / given.batch).backward()
            for optimizer in optimizers:
                optimizer.step()
                optimizer.zero_grad()
            with torch.no_grad():
                torch._foreach_lerp_(averages, list(head.parameters()), 1e-3)
        if device.type == "cuda":
            torch.cuda.synchronize()
        return (time.perf_counter() - begin) / steps

    found = steps_timed(turn, given.seconds)
    peak = torch.cuda.max_memory_allocated() / 1e9 if device.type == "cuda" else resident_gb()
    return {**found, "puzzles_s": round(1e3 * given.batch / found["median_ms"], 1),
            "peak_gb": round(peak, 3), "parameters": sum(p.numel() for p in head.parameters())}  # fmt: skip


def main() -> None:
    """One measurement."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("reference", type=Path)
    parser.add_argument("--model", choices=sorted(MODELS), default="trm_mlp")
    parser.add_argument("--options", required=True, help="the model's configuration, JSON")
    parser.add_argument("--batch", type=int, default=768)
    parser.add_argument("--device", choices=["cpu", "gpu"], default="gpu")
    parser.add_argument("--seconds", type=float, default=15.0)
    parser.add_argument("--compile", action="store_true")
    given = parser.parse_args()
    torch.manual_seed(0)
    torch.set_float32_matmul_precision("high")  # TF32, as MLX does
    found = trained(given)
    print(json.dumps({
        "variant": "torch compiled" if given.compile else "torch", "model": given.model, "batch": given.batch,
        "precision": json.loads(given.options)["forward_dtype"], **found, "device": given.device,
        "torch": torch.__version__,
    }), flush=True)  # fmt: skip


if __name__ == "__main__":
    main()
