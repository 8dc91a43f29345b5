# The checkout with its pinned set. For a GPU: docker build --build-arg DEVICE=cuda -t recalign:cuda .
ARG PYTHON=3.11
FROM python:${PYTHON}-slim-bookworm

ARG DEVICE=cpu
ENV DO_NOT_TRACK=1 \
    HF_HUB_DISABLE_TELEMETRY=1 \
    PREFECT_SERVER_ANALYTICS_ENABLED=false \
    PYTHONUNBUFFERED=1 \
    HF_HOME=/data/.cache/huggingface \
    PREFECT_HOME=/data/.prefect \
    RECALIGN_CACHE=/data/.cache \
    RECALIGN_OUTPUT=/data/recs.parquet \
    RECALIGN_ROOT=/data/artifacts

RUN useradd --create-home --uid 1000 recalign && install --directory --owner recalign /data
WORKDIR /srv/recalign

# torch first and alone: its index of CPU builds has nothing else that is needed, and the default
# index has the CUDA build.
COPY constraints.txt ./
SHELL ["/bin/bash", "-euo", "pipefail", "-c"]
RUN case "$DEVICE" in \
        cpu) index=https://download.pytorch.org/whl/cpu ;; \
        cuda) index=https://pypi.org/simple ;; \
        *) echo "DEVICE is cpu or cuda, not $DEVICE" >&2; exit 1 ;; \
    esac; \
    pip install --no-cache-dir --constraint constraints.txt --index-url "$index" torch

COPY pyproject.toml README.md LICENSE prefect.yaml prefect.containers.yaml ./
COPY recalign recalign
COPY tasks tasks
COPY flows flows
RUN extras=server,s3,gguf; \
    if [ "$DEVICE" = cuda ]; then extras+=,quant; fi; \
    pip install --no-cache-dir --constraint constraints.txt --editable ".[$extras]"

USER 1000
VOLUME /data
CMD ["recalign", "--help"]
