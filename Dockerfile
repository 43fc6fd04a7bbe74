# One image for everything of ours: the authorization server, the certificate authority, the demo's services.
#
#   docker build -t authz:0.1.0 .
#   docker run --read-only --cap-drop ALL -v ./policies:/policies:ro -p 127.0.0.1:9191:9191 \
#     authz:0.1.0 serve --policies /policies --listen 0.0.0.0:9191
# A released image is built by `make image`, on the base that requirements/base-image.txt names by its digest.
ARG BASE=python:3.11-slim-bookworm
FROM ${BASE} AS build
WORKDIR /build
RUN python -m venv --without-pip /opt/authz
# Dependencies first, so that a change of the code alone does not fetch them again; wheels only, nothing is compiled, and
# each has the digest that `make requirements` wrote down.
COPY requirements ./requirements
RUN pip install --no-cache-dir --disable-pip-version-check --only-binary :all: --require-hashes -r requirements/build.txt \
    && pip --python /opt/authz/bin/python install --no-cache-dir --disable-pip-version-check --only-binary :all: \
       --require-hashes -r requirements/image.txt
COPY pyproject.toml ./
COPY README.md LICENSE ./
COPY authz ./authz
COPY policies ./policies
COPY traffic ./traffic
COPY packaging ./packaging
COPY envoy-configs/mesh.yaml ./envoy-configs/
COPY docs/compose/keycloak/realm.json ./docs/compose/keycloak/
RUN pip wheel --no-cache-dir --disable-pip-version-check --no-deps --no-build-isolation --wheel-dir dist . \
    && pip --python /opt/authz/bin/python install --no-cache-dir --disable-pip-version-check --no-deps dist/*.whl

FROM ${BASE}
COPY --from=build /opt/authz /opt/authz
ENV PATH=/opt/authz/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
# Named volumes take owner and mode of the directory that they cover when they are new: docker-compose.yaml has the users.
RUN mkdir -m 0755 /mesh && cd /mesh && mkdir -m 0700 ca web outside issuer && mkdir -m 0750 audit revocations \
    && chown 10001:10001 . audit issuer && chown 10003:10001 ca revocations && chown 10110:10001 web && chown 10004:10001 outside
# The same for docker-compose.fleet.yaml.
RUN install -d -m 0755 /fleet && cd /fleet \
    && install -d -o 10003 -g 10001 -m 0700 root authority-1 authority-2 authority-3 truth-1 truth-2 truth-3 operator kept \
    && install -d -o 10003 -g 10001 -m 0750 public token-web token-api \
    && install -d -o 10120 -g 10001 -m 0700 web && install -d -o 10121 -g 10001 -m 0700 api
WORKDIR /mesh
USER 10001:10001
ENTRYPOINT ["authz"]
CMD ["--help"]
