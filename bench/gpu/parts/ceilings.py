"""Part `ceilings`: what the card can do at best, measured: matrix products and copies. Timed with CUDA events."""

from __future__ import annotations

import torch

from bench.gpu.parts.timing import by_events
from bench.gpu.record import Record

SIZES = (4096, 6144, 8192, 12288, 16384)
KINDS = {"bf16": torch.bfloat16, "tf32": torch.float32, "fp32": torch.float32}


def run(record: Record) -> None:
    record.attempt("matrix products", 3, lambda: matrix_products(record))
    record.attempt("copies", 2, lambda: copies(record))


def matrix_products(record: Record) -> None:
    """TFLOP/s of square matrix products, 2 n^3 operations each: the best over the sizes."""
    device, found = record.device, {}
    for kind, dtype in KINDS.items():
        if kind == "tf32" and device == "cpu":
            continue
        torch.set_float32_matmul_precision("high" if kind == "tf32" else "highest")
        sizes = {}
        for size in (256, 512) if record.small else SIZES:
            if record.left < 2:
                break
            if kind == "fp32" and size > 8192:  # as fast as the size before, and ten times as long
                continue
            left = torch.randn(size, size, device=device).to(dtype)
            right = torch.randn(size, size, device=device).to(dtype)
            repeats = max(1, min(50, int(2e13 / size**3))) if device == "cuda" else 1
            seconds = by_events(lambda left=left, right=right: left @ right, device, repeats)
            sizes[str(size)] = round(2e-12 * size**3 / seconds, 2)
        if sizes:
            best = max(sizes, key=lambda size: sizes[size])
            found[kind] = {"tflops": sizes[best], "size": int(best), "sizes": sizes}
            record.put("matrix_products", found, f"{kind} {sizes[best]} TFLOP/s at {best}")
    torch.set_float32_matmul_precision("highest")


def copies(record: Record) -> None:
    """GB/s of copies: within the device (bytes read and written both counted), and between host and device."""
    device, size = record.device, 2**20 if record.small else 2**28
    source = torch.empty(4 * size, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    seconds = by_events(lambda: target.copy_(source), device, 10)
    found = {"device": round(2e-9 * source.numel() / seconds, 1)}
    if device == "cuda":
        on_device = source[:size]
        for kind in ("pinned", "pageable"):
            host = torch.empty(size, dtype=torch.uint8, pin_memory=kind == "pinned").zero_()
            to_device = by_events(lambda host=host: on_device.copy_(host, non_blocking=True), device, 3)
            to_host = by_events(lambda host=host: host.copy_(on_device, non_blocking=True), device, 3)
            found[f"to_device_{kind}"] = round(1e-9 * size / to_device, 1)
            found[f"to_host_{kind}"] = round(1e-9 * size / to_host, 1)
    record.put("copies", found, ", ".join(f"{name} {rate} GB/s" for name, rate in found.items()))
