"Where benchmarks put what they measured: a section of RESULTS.md, with the machine."
import platform, re, time
from pathlib import Path

import torch

here = Path(__file__).resolve().parent

def machine():
    "One line that says where a figure comes from."
    gpu = f', {torch.cuda.get_device_name()}' if torch.cuda.is_available() else ''
    return (f'{platform.system()} {platform.machine()}, {torch.get_num_threads()} threads{gpu}, Python {platform.python_version()}, '
            f'torch {torch.__version__}, {time.strftime("%Y-%m-%d")}')

def replace(path, name, text):
    "Put `text` between the markers of `name` in `path`; they are added at the end where there are none."
    begin, end = f'<!-- {name} -->', f'<!-- /{name} -->'
    old = path.read_text(encoding='utf-8') if path.exists() else '# Results\n\nWritten by the scripts beside this file; nothing is typed by hand.\n'
    block = f'{begin}\n{text.strip()}\n{end}'
    pattern = re.compile(re.escape(begin) + '.*?' + re.escape(end), re.S)
    path.write_text(pattern.sub(lambda _: block, old) if pattern.search(old) else f'{old.rstrip()}\n\n{block}\n', encoding='utf-8')

def report(name, title, text):
    "Print a result and keep it in RESULTS.md."
    print(f'{title}\n{text}')
    replace(here/'RESULTS.md', name, f'## {title}\n\n`python benchmarks/{name}.py` on {machine()}\n\n{text}')

def interleaved(rounds, **fs):
    "Least seconds of each function over `rounds`, called in turn, so that a busy moment hits all of them."
    best = dict.fromkeys(fs, float('inf'))
    for _ in range(rounds):
        for name, f in fs.items():
            start = time.perf_counter()
            f()
            best[name] = min(best[name], time.perf_counter()-start)
    return best
