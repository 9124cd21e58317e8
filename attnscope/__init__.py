"""attnscope: a microscope for vision attention.

    import attnscope
    report = attnscope.explore(attnscope.SwinSpec(window=7, shift=True))
    print(report.totals.macs)

The modules are ordinary `nn.Module`s. The public names are declared in `__init__.pyi`. Each is imported on first use,
so `import attnscope` is fast and does not import torch.
"""

from lazy_loader import attach_stub

__getattr__, __dir__, __all__ = attach_stub(__name__, __file__)
