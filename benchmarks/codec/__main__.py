from compressor.benchmarks.codec.reencode import main

main()
