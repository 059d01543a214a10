# Extras of the package: logins, certificates by SNI, the queue on PostgreSQL, delivery. Others: --build-arg EXTRAS=...
ARG EXTRAS=auth,tls,postgresql,delivery

FROM python:3.13-slim AS build
ARG EXTRAS
WORKDIR /src
COPY . .
# A package index of one's own: docker build --secret id=pip,src=pip.conf. It leaves no trace in the image.
RUN --mount=type=secret,id=pip,target=/etc/pip.conf \
    pip wheel --no-cache-dir --no-deps --wheel-dir /wheels . \
    && python -m venv --without-pip /opt/fastsmtp \
    && pip --python /opt/fastsmtp install --no-cache-dir --only-binary :all: "$(echo /wheels/*.whl)[$EXTRAS]"

FROM python:3.13-slim
ARG VERSION=0.1.0 REVISION= CREATED=
LABEL org.opencontainers.image.title="fastsmtp" \
      org.opencontainers.image.description="SMTP server framework for Python" \
      org.opencontainers.image.licenses="MIT" \
      org.opencontainers.image.version="$VERSION" \
      org.opencontainers.image.revision="$REVISION" \
      org.opencontainers.image.created="$CREATED"
# Nothing is installed in a container that runs: pip goes. A new named volume takes its owner and mode from /data.
RUN pip uninstall --yes --quiet --root-user-action ignore pip \
    && install -d -o 10001 -g 10001 -m 0750 /data \
    && install -d /app
# Same base as the build stage: the environment's interpreter is at the same path in both.
COPY --from=build /opt/fastsmtp /opt/fastsmtp
# /app: the user's application, and the packages that it needs; one layer.
ENV PATH=/opt/fastsmtp/bin:$PATH \
    PYTHONPATH=/app \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    FASTSMTP_ADMIN=127.0.0.1:8025
# Numeric, so that Kubernetes' runAsNonRoot can check it.
USER 10001:10001
WORKDIR /data
VOLUME /data
EXPOSE 2525
STOPSIGNAL SIGTERM
# Asks the admin process: ready, and whatever the flags say about listeners.
HEALTHCHECK --interval=15s --timeout=6s --start-period=30s CMD ["fastsmtp", "healthcheck"]
ENTRYPOINT ["fastsmtp"]
CMD ["serve", "--listen", "0.0.0.0:2525", "--store", "maildir:/data/mail"]
