"""The codec against others and against itself; the extra `bench` brings what it needs.

python -m compressor.benchmarks.codec                     .dcz files written again by each coder
python -m compressor.benchmarks.codec.sizes               the integers of NNCodec, in our file
python -m compressor.benchmarks.codec.speed               weights per second, side by side
python -m compressor.benchmarks.codec.scale               large networks, threads, memory, loading
python -m compressor.benchmarks.codec.curves              bytes and accuracy of simple methods
python -m compressor.benchmarks.codec.quantized           bytes and accuracy of --quantize auto
python -m compressor.benchmarks.codec.plot                all of these as one picture
python -m compressor.benchmarks.codec.rivals.environment  builds NNCodec's environment
python -m compressor.benchmarks.codec.rivals.tuning       NNCodec at many settings
"""
