# syntax=docker/dockerfile:1

# The build needs cmake and a C compiler for the cryptography.
FROM rust:1-slim-bookworm AS build
RUN apt-get update \
    && apt-get install --yes --no-install-recommends cmake gcc g++ make \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /src
COPY Cargo.toml Cargo.lock ./
COPY config.example.toml ./
COPY src ./src
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/src/target \
    cargo build --release --locked --bin portcullis \
    && install -D --strip target/release/portcullis /out/portcullis
# There is no shell in the image to make it later.
RUN install --directory --mode=0700 /out/state/portcullis

# glibc and CA certificates; no shell, no package manager.
FROM gcr.io/distroless/cc-debian12:nonroot
COPY --from=build /out/portcullis /usr/local/bin/portcullis
COPY --from=build --chown=65532:65532 /out/state/ /var/lib/
# Sessions and the generated session key.
VOLUME ["/var/lib/portcullis"]
# The listener of config.example.toml. The configuration is mounted at /etc/portcullis/portcullis.toml.
EXPOSE 443
USER 65532:65532
STOPSIGNAL SIGTERM
ENTRYPOINT ["/usr/local/bin/portcullis"]
CMD ["run"]
