# syntax=docker/dockerfile:1
FROM python:3.13-slim-bookworm AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1
WORKDIR /src
RUN python -m venv /opt/fraudstream
COPY requirements.lock requirements-runtime.lock ./
RUN /opt/fraudstream/bin/pip install --require-hashes --requirement requirements-runtime.lock
# The build backend comes from the full lock, by hash too, and stays in this stage.
RUN awk '/^setuptools==/ {take = 1} take {print} take && !/\\$/ {exit}' requirements.lock > build.lock \
    && pip install --require-hashes --requirement build.lock
COPY pyproject.toml README.md LICENSE ./
COPY streams streams
COPY models models
COPY monitoring monitoring
RUN pip wheel --no-deps --no-build-isolation --wheel-dir /wheels . \
    && /opt/fraudstream/bin/pip install --no-deps --no-index /wheels/*.whl

FROM python:3.13-slim-bookworm
LABEL org.opencontainers.image.title="fraudstream" org.opencontainers.image.licenses="Apache-2.0"
RUN groupadd --system --gid 10001 fraud && useradd --system --uid 10001 --gid 10001 --no-create-home fraud
COPY --from=build /opt/fraudstream /opt/fraudstream
# The window kernels are compiled on first use and cached here; the root may be read-only, so /tmp must be a tmpfs or a
# volume. On a volume the cache outlives the container and a restart skips the compilation.
ENV PATH=/opt/fraudstream/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 NUMBA_CACHE_DIR=/tmp/numba \
    FRAUD_WORKER__METRICS_HOST=0.0.0.0 FRAUD_WORKER__METRICS_PORT=9464
USER 10001:10001
WORKDIR /tmp
EXPOSE 9464
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=3s --start-period=60s --retries=3 \
    CMD ["python", "-c", "import urllib.request as u; u.urlopen('http://127.0.0.1:9464/livez', timeout=2)"]
ENTRYPOINT ["fraudstream"]
CMD ["worker"]
