ARG PYTHON=3.12.13-slim-bookworm

FROM python:${PYTHON} AS build
# PyTorch's own index of CPU builds; those on PyPI bring some gigabytes of CUDA along. For a GPU build the image with
#   docker build --build-arg TORCH_INDEX_URL=https://pypi.org/simple .
ARG TORCH_INDEX_URL=https://download.pytorch.org/whl/cpu
ENV PIP_DISABLE_PIP_VERSION_CHECK=1
RUN python -m venv /opt/stream-gru
ENV PATH=/opt/stream-gru/bin:$PATH
WORKDIR /src
# torch first and alone: the largest layer, which a change of the code leaves in the cache. What it needs itself comes
# with the rest, so that no other package is taken from its index.
COPY constraints.txt ./
RUN --mount=type=cache,target=/root/.cache/pip \
    pip install --no-deps --index-url "$TORCH_INDEX_URL" --constraint constraints.txt torch
COPY pyproject.toml README.md LICENSE ./
COPY stream_gru ./stream_gru
RUN --mount=type=cache,target=/root/.cache/pip \
    pip install --constraint constraints.txt .

FROM python:${PYTHON}
# tini passes signals on: SIGTERM makes a worker flush, save its state and leave its group. Its version can't be pinned,
# as Debian keeps only the newest patch of a package.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends tini \
    && rm -rf /var/lib/apt/lists/* \
    && groupadd --gid 10001 stream-gru \
    && useradd --uid 10001 --gid 10001 --no-log-init --create-home --home-dir /var/lib/stream-gru stream-gru
COPY --from=build /opt/stream-gru /opt/stream-gru
ENV PATH=/opt/stream-gru/bin:$PATH \
    PYTHONUNBUFFERED=1
USER 10001:10001
# Read from here: stream-gru.toml, should one be mounted.
WORKDIR /var/lib/stream-gru
EXPOSE 9108
# /health fails once a worker has stalled. Commands other than the worker serve no such page: disable it for them.
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s --retries=3 \
    CMD ["python", "-c", \
    "import os, urllib.request as r; r.urlopen('http://127.0.0.1:' + os.environ.get('STREAM_GRU_METRICS__PORT', '9108') + '/health', timeout=4)"]
ENTRYPOINT ["tini", "--", "stream-gru"]
CMD ["worker"]
