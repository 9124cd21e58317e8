"""Start-up of `attnscope shard`, and what the fake verification costs over importing torch; then the bytes of Swin's halos.

python -m benchmarks.shard
"""

import tempfile
from pathlib import Path

from attnscope import SwinSpec, plan_shards
from benchmarks.ratios import HEAD, of_processes
from benchmarks.startup import HELLO

VERIFY = """-c '
import torch
from attnscope import ViTSpec
from attnscope.plan.mesh import parse_mesh
from attnscope.sharding.verification import verify_on_fake
assert verify_on_fake(ViTSpec(), parse_mesh("ring=8")).agrees
'"""


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        hello = Path(folder) / "hello.py"
        hello.write_text(HELLO)
        print(HEAD)
        for words in (
            "shard vit --plan tp=4 --no-verify",
            "shard vit --tokens 1048576 --dim 65536 --heads 1024 --plan ulysses=1024 --no-verify",
        ):
            print(of_processes(f"`attnscope {words}` over a Typer program", f"-m attnscope {words}", str(hello), 2.0))
    print(
        of_processes(
            "fake verification of ViT-B's attention on 8 ranks over importing torch", VERIFY, "-c 'import torch'", 1.5
        )
    )
    for ranks in (2, 4, 8):
        sent = plan_shards(SwinSpec(shift=True), f"windows={ranks}").totals.bytes_sent
        print(f"Swin-T stage 1, shifted, on {ranks} ranks: {sent:,} B by one rank (129,024)")


if __name__ == "__main__":
    main()
