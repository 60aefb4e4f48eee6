"""Channel pruning against Torch-Pruning and itself; the extra `bench` brings what it needs.

python -m compressor.benchmarks.channels.coverage            46 networks cut, proved and exported
python -m compressor.benchmarks.channels.covered NETWORK     one of them, as one line of JSON
python -m compressor.benchmarks.channels.rivals.environment  builds Torch-Pruning's environment
"""
