"How benchmarks measure and what they say of the machine; the measuring itself is no test."
import os, re, subprocess, sys
from pathlib import Path

import pytest

benchmarks = Path(__file__).parents[1]/'benchmarks'

@pytest.fixture
def report(monkeypatch, tmp_path):
    "The module `report`, with its results in a temporary folder."
    monkeypatch.setenv('MINIAI_RESULTS', str(tmp_path/'RESULTS.md'))
    monkeypatch.syspath_prepend(str(benchmarks))
    monkeypatch.delitem(sys.modules, 'report', raising=False)
    import report
    yield report
    del sys.modules['report']

def test_timing(report):
    t = report.Timing([3., 1., 2.])
    assert (t.n, t.least, t.mean, t.std)==(3, 1., 2., 1.)                # the deviation of a sample: n-1
    assert report.Timing([4., 5.])/t==4.                                 # between least times
    assert t.told(1, 1)=='1.0 (2.0 ± 1.0)' and t.told()=='1,000.00 (2,000.00 ± 1,000.00)'
    assert report.Timing([1.]).told(1, 1)=='1.0' and report.Timing([1.]).std==0

def test_interleaved_takes_turns(report):
    turns = []
    t = report.interleaved(3, a=lambda: turns.append('a'), b=lambda: turns.append('b'))
    assert ''.join(turns)=='ababab' and t.keys()=={'a', 'b'}
    assert all(o.n==3 and 0<=o.least<=o.mean for o in t.values())

def git(folder, *args):
    author = '-c', 'user.name=somebody', '-c', 'user.email=somebody@example.org'
    return subprocess.run(['git', '-C', str(folder), *author, *args], check=True, capture_output=True, text=True).stdout.strip()

def test_commit(report, tmp_path):
    assert report.commit(tmp_path)=='no commit'                          # an archive without git
    project = tmp_path/'project'
    (project/'benchmarks').mkdir(parents=True)
    git(project, 'init', '-q')
    assert report.commit(project)=='no commit'                           # nothing committed yet
    for o in ('code.py', 'README.md', 'benchmarks/RESULTS.md'): (project/o).write_text('1')
    git(project, 'add', '-A')
    git(project, 'commit', '-q', '-m', 'Begin')
    head = git(project, 'rev-parse', '--short', 'HEAD')
    assert report.commit(project)==f'commit {head}'
    for o in ('README.md', 'benchmarks/RESULTS.md'): (project/o).write_text('2')
    assert report.commit(project)==f'commit {head}'                      # what a benchmark writes does not count
    (project/'code.py').write_text('2')
    assert report.commit(project)==f'commit {head}+'
    assert report.commit(project/'benchmarks')=='no commit'              # a copy inside another project

def test_no_git_at_all(report, monkeypatch):
    monkeypatch.setenv('PATH', '')
    assert report.commit()=='no commit'

def test_machine(report):
    line = report.machine()
    assert re.search(rf', {report.cores()} cores, \d+ threads, .*Python 3\.\d+.*, torch .*, (no commit|commit \w+\+?), \d{{4}}-', line)
    assert line.startswith(report.cpu()) and len(report.cpu())>2 and 1<=report.cores()<=os.cpu_count()

def test_report_keeps_its_section(report, capsys):
    report.report('a', 'First', 'one')
    report.report('b', 'Second', 'two')
    report.report('a', 'First', 'three')
    text = report.results.read_text(encoding='utf-8')
    assert 'one' not in text and text.index('three')<text.index('two') and text.count('<!-- a -->')==1
    assert text.count(report.cpu())==2
