.DEFAULT_GOAL := help
.PHONY: help train test notebooks counts bench clean

help:       ## show these lines
	@grep -E '^[a-z]+:.*##' Makefile | sed 's/:.*##/\t/' | expand -t 12

train:      ## train an autoencoder on the digits
	miniai-train

test:       ## run every lesson as a test, then the tests
	export OMP_NUM_THREADS=1; nbdev-test && pytest

notebooks:  ## export, then run all lessons and save their outputs
	nbdev-export && python nbs/run.py --slow

counts:     ## count lines, tokens, longest functions and cells of each module
	python tests/test_house.py

bench:      ## measure; keep the figures in benchmarks/RESULTS.md
	for o in default_run loading conv layout overhead autoencoder; do python benchmarks/$$o.py || exit 1; done

clean:      ## remove what was built
	rm -rf build dist *.egg-info .pytest_cache miniai/__pycache__ tests/__pycache__ nbs/__pycache__
