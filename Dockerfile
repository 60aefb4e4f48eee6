# docker build -t compressor --build-arg TORCH_INDEX=<index with CPU wheels> .
# docker run --rm -v "$PWD:/work" compressor lenet5.pt --prune-sensitivity 0.25 --quantize 5bit
#
# The container's user has id 1000; add --user "$(id -u)" where yours is another.

FROM python:3.12-slim AS build
WORKDIR /src
# The C core makes coding fast; without a compiler NumPy does its work.
RUN apt-get update && apt-get install -y --no-install-recommends gcc libc6-dev
COPY setup.cfg setup.py pyproject.toml README.md LICENSE ./
COPY compressor compressor
COPY cli cli
COPY models models
COPY benchmarks benchmarks
RUN pip wheel --no-cache-dir --no-deps --wheel-dir /wheels .

FROM python:3.12-slim
# An index with CPU wheels of torch, which are several GB smaller than those of the default index.
ARG TORCH_INDEX=""
COPY --from=build /wheels /wheels
RUN pip install --no-cache-dir ${TORCH_INDEX:+--extra-index-url "$TORCH_INDEX"} /wheels/*.whl
RUN useradd --create-home --uid 1000 user && mkdir /work && chown user /work
USER user
WORKDIR /work
ENTRYPOINT ["compress"]
CMD ["--help"]
