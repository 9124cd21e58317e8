"""Start-up time of the command, over a Typer program that only prints a word and over importing torch.

python -m benchmarks.startup
"""

import tempfile
from pathlib import Path

from benchmarks.ratios import HEAD, of_processes

HELLO = 'import typer\n\n\ndef main():\n    print("word")\n\n\ntyper.run(main)\n'


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        hello = Path(folder) / "hello.py"
        hello.write_text(HELLO)
        print(HEAD)
        for words, bar in [
            ("--help", 0.95),
            ("--version", 0.95),
            ("vit --no-time", 1.6),
            ("swin --window 7 --shift --no-time", 1.6),
            ("swin --preset swin-b-224 --scope model --no-time", 2.5),
            ("presets", 2.0),
        ]:
            print(of_processes(f"`attnscope {words}` over a Typer program", f"-m attnscope {words}", str(hello), bar))
    print(of_processes("`attnscope vit` over importing torch", "-m attnscope vit", "-c 'import torch'", 1.3))
    few, many = ("-m attnscope vit --no-time --tokens " + tokens for tokens in ("197", "1000000000"))
    print(of_processes("one billion tokens over 197", many, few, 1.1))


if __name__ == "__main__":
    main()
