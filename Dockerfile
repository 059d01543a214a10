FROM python:3.13-slim AS build
WORKDIR /src
COPY . .
RUN pip wheel --no-cache-dir --no-deps --wheel-dir /wheels . \
    && python -m venv --without-pip /opt/fastsmtp \
    && pip --python /opt/fastsmtp install --no-cache-dir --only-binary :all: /wheels/*.whl

FROM python:3.13-slim
LABEL org.opencontainers.image.title="fastsmtp" \
      org.opencontainers.image.description="SMTP server framework for Python" \
      org.opencontainers.image.licenses="MIT"
# Same base as the build stage: the environment's interpreter is at the same path in both.
COPY --from=build /opt/fastsmtp /opt/fastsmtp
# A new named volume takes its owner and mode from this folder.
RUN install -d -o 10001 -g 10001 -m 0750 /data
ENV PATH=/opt/fastsmtp/bin:$PATH \
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
