FROM python:3.11.14-slim-trixie AS build
WORKDIR /source
# With the extra avro; the others have the same versions in requirements.txt.
COPY requirements-avro.txt .
RUN ["python", "-m", "venv", "/opt/heartwheel"]
# hadolint ignore=DL3059 # one RUN for both would need a shell
RUN ["/opt/heartwheel/bin/pip", "install", "--no-cache-dir", "--no-deps", "--require-hashes", "-r", "requirements-avro.txt"]
# hadolint ignore=DL3059 # likewise
RUN ["/opt/heartwheel/bin/pip", "check"]
COPY pyproject.toml README.md LICENSE ./
COPY session_logic session_logic
COPY dataflows dataflows
COPY heartwheel heartwheel
RUN ["/opt/heartwheel/bin/pip", "install", "--no-cache-dir", "--no-deps", "--no-build-isolation", "."]

FROM python:3.11.14-slim-trixie AS heartwheel
# A named volume takes over the owner of the directory that it is mounted on.
RUN ["install", "-d", "-o", "10001", "-g", "10001", "/var/lib/heartwheel"]
COPY --from=build /opt/heartwheel /opt/heartwheel
ENV PATH=/opt/heartwheel/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    HEARTWHEEL_RECOVERY_DIR=/var/lib/heartwheel/recovery
USER 10001:10001
WORKDIR /var/lib/heartwheel
STOPSIGNAL SIGTERM
# The probe of an orchestrator is better: this one is for Docker alone, on the default port.
HEALTHCHECK --interval=10s --timeout=5s --start-period=120s --retries=3 \
    CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8080/livez', timeout=4)"]
ENTRYPOINT ["heartwheel"]
CMD ["run"]

# waxctl's chart starts `sh -c "sh ./entrypoint.sh"`, whatever the image is. Debian's sh would stay
# as process 1, and signals with it: bash gives way to what it starts last.
FROM heartwheel AS waxctl
USER 0:0
RUN ["ln", "-s", "/bin/bash", "/opt/heartwheel/bin/sh"]
USER 10001:10001
WORKDIR /bytewax
COPY k8s/waxctl/entrypoint.sh k8s/waxctl/entrypoint-recovery.sh ./

# The last stage is what is built without --target.
FROM heartwheel
