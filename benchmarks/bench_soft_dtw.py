"""Soft-DTW divergence of windows of responses, with its gradient, against tslearn's for torch.

Tslearn computes in single precision, pair after pair, by loops that numba compiles. Losses and
gradients are compared before anything is timed. One thread computes, and its time is that of the
processor, so that what else runs there counts little. A second row leaves our compiled kernel out.
"""

from __future__ import annotations

import os
import time

import torch
from _measure import Row, compare, parser, report

from v1tlearn.nn import fast, soft_dtw_divergence

GAMMA = 0.1
BAR = 20.0


def main() -> None:
    arguments = parser(__doc__)
    arguments.add_argument("--windows", type=int, default=200)
    arguments.add_argument("--frames", type=int, default=12)
    arguments.add_argument("--neurons", type=int, default=90)
    args = arguments.parse_args()
    args.device = "cpu"  # where tslearn's loops are
    if args.quick:
        args.windows, args.neurons, args.repeats = 8, 5, 1
    os.environ["NUMBA_NUM_THREADS"] = "1"  # else it sets the threads of torch, too
    from tslearn.metrics import SoftDTWLossPyTorch  # of the extra "test"

    torch.set_num_threads(1)
    torch.manual_seed(0)
    target, prediction = torch.rand(2, args.windows, args.frames, args.neurons)
    prediction.requires_grad_()
    their_loss = SoftDTWLossPyTorch(gamma=GAMMA, normalize=True)

    def plain() -> tuple[torch.Tensor, torch.Tensor]:
        loss = their_loss(prediction, target).mean()
        return loss.detach(), *torch.autograd.grad(loss, prediction)

    def ours() -> tuple[torch.Tensor, torch.Tensor]:
        loss = soft_dtw_divergence(prediction, target, gamma=GAMMA).mean()
        return loss.detach(), *torch.autograd.grad(loss, prediction)

    def without_kernel() -> tuple[torch.Tensor, torch.Tensor]:
        with fast.using("blocked"):
            return ours()

    for function in (ours, without_kernel):
        torch.testing.assert_close(function(), plain(), rtol=1e-3, atol=1e-5)
    note = f"{args.windows} windows of {args.frames} frames, {args.neurons} neurons, one core"
    bar = None if args.quick else BAR
    rows = []
    for name, function, least in (("", ours, bar), (", without a kernel", without_kernel, None)):
        times = compare(plain, function, args.repeats, clock=time.process_time)
        what = f"soft-DTW divergence and gradient{name}"
        rows.append(Row(what, *times[:2], "s", times[2], least, note))
    report("soft_dtw", rows, args)


if __name__ == "__main__":
    main()
