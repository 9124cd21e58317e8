"""ShardingReport -> its verification: the sharded module runs and is compared with the plan."""

import torch

from attnscope.attentions.spec import Spec
from attnscope.plan.mesh import parse_mesh
from attnscope.reports.sharding import ShardingReport
from attnscope.sharding.verification import verify_on_fake, verify_on_processes


def verify_shards(report: ShardingReport, spec: Spec, on_processes: bool = False) -> ShardingReport:
    """Run the sharded module of a report's attention, and add the result to the report.

    Args:
        report: the report of the plan.
        spec: its attention.
        on_processes: run all ranks as processes with gloo, and compare values; otherwise on a fake process group.

    Raises:
        UsageError: torch.distributed is in use, or the attention is too large for processes of this machine.
        AttnscopeError: a rank failed, or did not end in time.
    """
    mesh = parse_mesh(report.plan)
    report.environment["torch"] = torch.__version__
    report.verification = verify_on_processes(spec, mesh) if on_processes else verify_on_fake(spec, mesh)
    return report
