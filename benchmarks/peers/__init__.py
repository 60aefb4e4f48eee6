"""What one would use in place of this tool, on the same network and data: one table, one picture.

python -m compressor.benchmarks.peers                     all of it; see its --help
python -m compressor.benchmarks.peers.making TASK METHOD  one method's files, which it starts

Every method leaves files to ship, whose bytes are counted, and an ONNX file of the network that
they hold, which ``compress bench`` measures: multiply-adds, time, accuracy. Whoever trains has the
same images, once, with the same optimiser, rate and order. Whoever looks at images without training
says so in its row. Tools of others run in environments of their own.
"""
