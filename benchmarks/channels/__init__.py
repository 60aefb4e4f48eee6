"""Channel pruning against Torch-Pruning and itself; the extra `bench` brings what it needs.

python -m compressor.benchmarks.channels.coverage            46 networks cut, proved and exported
python -m compressor.benchmarks.channels.covered NETWORK     one of them, as one line of JSON
python -m compressor.benchmarks.channels.latency             MACs against time, eleven networks
python -m compressor.benchmarks.channels.widths              width profiles of a machine
python -m compressor.benchmarks.channels.accuracy            ResNets of CIFAR-10, cut and fine-tuned
python -m compressor.benchmarks.channels.slimming            network slimming, with its plots
python -m compressor.benchmarks.channels.rivals.environment  builds Torch-Pruning's environment
"""
