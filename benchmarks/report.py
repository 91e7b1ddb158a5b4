"""How benchmarks measure, and where they put it: a section of RESULTS.md, with the machine and the commit.

MINIAI_RESULTS=/tmp/RESULTS.md python benchmarks/conv.py --rounds 3 tries a script without touching what is recorded."""
import os, platform, re, subprocess, time
from pathlib import Path
from statistics import mean, stdev

import torch

here = Path(__file__).resolve().parent
recorded = here/'RESULTS.md'
results = Path(os.environ.get('MINIAI_RESULTS') or recorded)
# what these scripts write themselves
written = 'benchmarks/RESULTS.md', 'benchmarks/long_runs.json', 'benchmarks/reconstructions.png', 'README.md'

class Timing:
    "Seconds that one job took in each round."
    def __init__(self, seconds): self.seconds = list(seconds)

    @property
    def n(self): return len(self.seconds)
    @property
    def least(self): return min(self.seconds)
    @property
    def mean(self): return mean(self.seconds)
    @property
    def std(self): return stdev(self.seconds) if self.n>1 else 0.

    def __truediv__(self, other):
        "How many times as long, by least times: a busy moment makes nothing faster."
        return self.least/other.least

    def told(self, unit=1e3, digits=2):
        "Least time, then mean ± standard deviation, in `unit` of a second: 1e3 for ms, 1e6 for µs."
        return spread(self.least*unit, [s*unit for s in self.seconds], digits)

def spread(best, values, digits=2):
    "A figure, and in brackets mean ± standard deviation of all rounds, if there are two at least."
    best = f'{best:,.{digits}f}'
    return f'{best} ({mean(values):,.{digits}f} ± {stdev(values):,.{digits}f})' if len(values)>1 else best

def interleaved(rounds, **fs):
    "The `Timing` of each function over `rounds`, called in turn, so that a busy moment hits all of them."
    seconds = {name: [] for name in fs}
    for _ in range(rounds):
        for name, f in fs.items():
            start = time.perf_counter()
            f()
            seconds[name].append(time.perf_counter()-start)
    return {name: Timing(o) for name, o in seconds.items()}

def cpu():
    "What the processor calls itself."
    info = Path('/proc/cpuinfo')
    names = re.findall(r'^model name\s*:\s*(.+)$', info.read_text(), re.M) if info.exists() else []
    if platform.system()=='Darwin': names = [output('sysctl', '-n', 'machdep.cpu.brand_string')]
    return next(filter(None, names), platform.processor() or platform.machine())

def cores():
    "How many cores this process may use."
    return len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count()

def output(*cmd):
    "What a command prints; '' if it fails or is not there."
    try: return subprocess.run(cmd, check=True, capture_output=True, text=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError): return ''

def commit(root=here.parent):
    "The commit of the project in `root`, with a + if a file has changed since; what benchmarks write does not count."
    git = 'git', '-C', str(root)
    top = output(*git, 'rev-parse', '--show-toplevel')
    if not top or Path(top).resolve()!=Path(root).resolve(): return 'no commit'      # a copy, maybe inside another project
    head, others = output(*git, 'rev-parse', '--short', 'HEAD'), [f':(exclude){o}' for o in written]
    changed = output(*git, 'status', '--porcelain', '--untracked-files=no', '--', '.', *others)
    return f'commit {head}{"+" if changed else ""}' if head else 'no commit'

def machine():
    "One line that says where a figure comes from."
    device = f', {torch.cuda.get_device_name()}' if torch.cuda.is_available() else ''
    return (f'{cpu()}, {cores()} cores, {torch.get_num_threads()} threads{device}, '
            f'{platform.system()} {platform.machine()}, Python {platform.python_version()}, torch {torch.__version__}, '
            f'{commit()}, {time.strftime("%Y-%m-%d")}')

def replace(path, name, text):
    "Put `text` between the markers of `name` in `path`; they are added at the end where there are none."
    begin, end = f'<!-- {name} -->', f'<!-- /{name} -->'
    empty = '# Results\n\nWritten by the scripts beside this file; nothing is typed by hand.\n'
    old = path.read_text(encoding='utf-8') if path.exists() else empty
    block = f'{begin}\n{text.strip()}\n{end}'
    pattern = re.compile(re.escape(begin) + '.*?' + re.escape(end), re.S)
    new = pattern.sub(lambda _: block, old) if pattern.search(old) else f'{old.rstrip()}\n\n{block}\n'
    path.write_text(new, encoding='utf-8')

def report(name, title, text):
    "Print a result and keep it in RESULTS.md."
    print(f'{title}\n{text}')
    replace(results, name, f'## {title}\n\n`python benchmarks/{name}.py` on {machine()}\n\n{text}')
