# One process, no root, nothing to write but /data: see docs/operations.md.
#     make image
# The wheel inside has the same bytes whenever and wherever this commit is built.
ARG PYTHON_IMAGE=python:3.12-slim-bookworm

FROM ${PYTHON_IMAGE} AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_COMPILE=1 PIP_QUIET=1 PIP_ROOT_USER_ACTION=ignore
WORKDIR /src
# What changes seldom comes first, so that a change of code installs nothing anew.
COPY deploy/image/build.lock deploy/image/requirements.lock deploy/image/
RUN python -m venv --without-pip /opt/build && pip --python /opt/build/bin/python install --no-deps --require-hashes -r deploy/image/build.lock
RUN python -m venv --without-pip /opt/flagd && pip --python /opt/flagd/bin/python install --no-deps --require-hashes -r deploy/image/requirements.lock
COPY pyproject.toml hatch_build.py README.md LICENSE ./
COPY flagd_server/ flagd_server/
COPY sdk/ sdk/
# .git is not in the context: what the wheel says of itself comes from here.
ARG GIT_SHA
ARG SOURCE_DATE_EPOCH
RUN GIT_SHA=${GIT_SHA} SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH} /opt/build/bin/python -m hatchling build -t wheel -d /opt/wheel
RUN pip --python /opt/flagd/bin/python install --no-deps --no-index /opt/wheel/*.whl
# The root may be read-only, so what Python would write beside its sources is there already.
RUN /opt/flagd/bin/python -m compileall -q --invalidation-mode unchecked-hash /opt/flagd/lib

FROM ${PYTHON_IMAGE}
ARG GIT_SHA
ARG VERSION
LABEL org.opencontainers.image.title="flagd-release" \
      org.opencontainers.image.description="Feature flags that go off by themselves: the server." \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${GIT_SHA}"
COPY --from=build /opt/flagd /opt/flagd
# A number, so that Kubernetes can see that it is not root; nobody else has it.
RUN mkdir /data && chown 10001:10001 /data
ENV PATH=/opt/flagd/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    FLAGD_HOST=0.0.0.0
# Where ./flagd.db is, unless FLAGD_DATABASE_URL names a Postgres.
WORKDIR /data
VOLUME ["/data"]
USER 10001:10001
EXPOSE 8013
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=15s --timeout=5s --start-period=60s --retries=3 CMD ["flagd-server", "health"]
ENTRYPOINT ["flagd-server"]
CMD ["serve"]
