# Two variants of one image: `--build-arg VARIANT=cpu` (default) and `--build-arg VARIANT=cuda`.
# They differ in where torch and onnxruntime come from; the driver comes with the host through the NVIDIA container
# toolkit. Compilers stay in the first stage.
ARG PYTHON_DIGEST=
FROM python:3.11.13-slim-bookworm${PYTHON_DIGEST} AS built

ARG VARIANT=cpu
ARG TORCH_VERSION=2.13.0
ARG ONNXRUNTIME_GPU_VERSION=1.31.1

RUN apt-get update \
    && apt-get install --yes --no-install-recommends build-essential \
    && rm -rf /var/lib/apt/lists/* \
    && python -m venv /opt/fpga
ENV PATH=/opt/fpga/bin:$PATH

WORKDIR /srv/fpga
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY orchestrator orchestrator
COPY workers workers
COPY fpga_models fpga_models
COPY migrations migrations
COPY alembic.ini prefect.yaml ./

# the CPU build has its own index; the normal build brings CUDA's libraries with it
RUN if [ "$VARIANT" = cpu ]; then \
        pip install --no-cache-dir --index-url https://download.pytorch.org/whl/cpu "torch==${TORCH_VERSION}"; \
    elif [ "$VARIANT" != cuda ]; then \
        echo "VARIANT must be cpu or cuda, got $VARIANT" >&2; exit 1; \
    fi \
    && pip install --no-cache-dir --constraint constraints.txt --editable '.[worker,c2pa]'

# face networks on CUDA: the wheel with the provider takes the place of the one that insightface asks for by name
RUN if [ "$VARIANT" = cuda ]; then \
        pip uninstall --yes onnxruntime \
        && pip install --no-cache-dir --no-deps "onnxruntime-gpu==${ONNXRUNTIME_GPU_VERSION}"; \
    fi

FROM python:3.11.13-slim-bookworm${PYTHON_DIGEST}

RUN apt-get update \
    && apt-get install --yes --no-install-recommends libgl1 libglib2.0-0 \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --create-home --uid 10001 fpga \
    && install --directory --owner fpga --mode 700 /var/lib/fpga
COPY --from=built /opt/fpga /opt/fpga
COPY --from=built /srv/fpga /srv/fpga

WORKDIR /srv/fpga
USER fpga
# the root of a container may be read-only: whatever is written goes below /var/lib/fpga or /tmp
ENV PATH=/opt/fpga/bin:$PATH \
    HOME=/var/lib/fpga \
    FPGA_STATE_DIR=/var/lib/fpga/state \
    PREFECT_HOME=/var/lib/fpga/prefect \
    FPGA_LOG_FORMAT=json \
    DO_NOT_TRACK=1 \
    PREFECT_RESULTS_DEFAULT_SERIALIZER=json \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1
ENTRYPOINT []
CMD ["fpga", "--help"]
