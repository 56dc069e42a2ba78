# The environment of the book and of every notebook, without weights or data.
#   docker build -t rklu .                              CPU: PyTorch's CPU build
#   docker build -t rklu --build-arg TORCH_INDEX= .     GPU: the CUDA build of the same version; run with --gpus all
# (gcc is Triton's, which compiles the optimiser of bf16 weights on a card.)
#   docker run --rm -p 8888:8888 -v "$PWD/runs:/rklu/runs" rklu
FROM python:3.11-slim-bookworm
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
SHELL ["/bin/bash", "-o", "pipefail", "-c"]
RUN apt-get update \
    && apt-get install --yes --no-install-recommends chromium gcc git libc6-dev make \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /rklu
COPY requirements.lock ./
# The lock's versions without its hashes, which pip takes for all packages or for none: torch comes from its own index.
RUN sed -nE 's/^([A-Za-z0-9._-]+==[^ ]+).*/\1/p' requirements.lock > pins.txt \
    && pip install --no-cache-dir ${TORCH_INDEX:+--index-url "$TORCH_INDEX"} "$(grep '^torch==' pins.txt)"
COPY . .
RUN pip install --no-cache-dir --constraint pins.txt --editable '.[book,test]' jupyterlab \
    && useradd --create-home reader && chown -R reader /rklu
USER reader
EXPOSE 8888
CMD ["jupyter", "lab", "--ip=0.0.0.0", "--no-browser", "notebooks"]
