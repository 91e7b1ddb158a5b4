"Hands settings.ini to setuptools; everything else about the package stands in pyproject.toml."
from configparser import ConfigParser
from pathlib import Path
from setuptools import setup

cfg = ConfigParser(delimiters=['='])
cfg.read_string((Path(__file__).parent/'settings.ini').read_text(encoding='utf-8'))
package, lines = cfg['package'], lambda text: text.strip().split('\n')

setup(author=package['author'], keywords=package['keywords'].split(), install_requires=lines(package['requirements']),
      extras_require={name: lines(text) for name, text in cfg['extras'].items()})
