# docker build -t gen-affect .
# docker run --rm -v "$PWD/outputs:/kit/outputs" gen-affect       # make demo: leaves outputs/expressions.png
# Checked with hadolint; not built yet.
FROM python:3.11-slim-bookworm

# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends libegl1 libgl1 libglib2.0-0 make \
    && rm -rf /var/lib/apt/lists/*

WORKDIR /kit
COPY . .
RUN make .venv/.installed
CMD ["make", "demo"]
