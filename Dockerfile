# syntax=docker/dockerfile:1

# Serves captions on a processor, by OpenVINO and without TensorFlow; see docs/serving.md.
#
#   docker build -t effcap .
#   docker run --rm -p 127.0.0.1:7860:7860 --read-only --tmpfs /tmp effcap

# The presets to serve, each in a folder; --build-context presets=FOLDER puts others in their place.
FROM scratch AS presets
COPY res/flickr8k-lite0 /flickr8k-lite0

# TensorFlow is only here, to compile the presets.
FROM python:3.12-slim-bookworm AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PIP_ROOT_USER_ACTION=ignore
WORKDIR /src
COPY pyproject.toml requirements.txt README.md LICENSE ./
COPY effcap effcap
COPY samplers samplers
COPY trainers trainers
COPY tools tools
COPY hparams hparams
COPY res res
RUN python -m venv /opt/compile && /opt/compile/bin/pip install '.[openvino]'
COPY --from=presets / /presets/
ARG PRECISION=float32
RUN for preset in /presets/*; do \
      /opt/compile/bin/python -c "import sys, effcap; effcap.load_compiled(*sys.argv[1:])" \
        "$preset" openvino "$PRECISION" || exit 1; \
    done

# What serving needs, in the versions of requirements.txt, without OpenVINO's plugins for GPUs and
# NPUs. PAGE=yes adds the page of Gradio.
ARG PAGE=no
RUN sed 's/\[data\]//' requirements.txt > /tmp/versions.txt \
    && python -m venv /opt/effcap \
    && /opt/effcap/bin/pip install --constraint /tmp/versions.txt \
      keras tokenizers h5py safetensors numpy pillow rich \
      openvino scipy fastapi uvicorn python-multipart $([ "$PAGE" = yes ] && echo gradio) \
    && /opt/effcap/bin/pip install --no-deps . \
    && /opt/effcap/bin/pip uninstall --yes pip \
    && cd /opt/effcap/lib/python3*/site-packages \
    && rm -r effcap/res/flickr8k-lite0 openvino/libs/libopenvino_intel_[gn]pu_* \
      openvino/libs/cache.json

FROM python:3.12-slim-bookworm
COPY --from=build /opt/effcap /opt/effcap
COPY --from=build /presets /presets
ENV PATH=/opt/effcap/bin:$PATH KERAS_BACKEND=openvino HOME=/tmp PYTHONDONTWRITEBYTECODE=1
USER 10001:10001
WORKDIR /presets
EXPOSE 7860
HEALTHCHECK --interval=30s --timeout=5s --start-period=60s --retries=3 \
    CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:7860/health', timeout=4)"]
ENTRYPOINT ["effcap", "serve", "--engine", "openvino", "--host", "0.0.0.0"]
CMD ["--no-page", "/presets/flickr8k-lite0"]
