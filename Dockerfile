# One image for Dataflow's workers, its template launcher, and `docker run IMAGE run --input ...`.
# `scripts/image` builds it, with the tag that tells version, Python and pins. Not built by us: tests run
# the commands of its layers without an engine.
#
# Tags, not digests, name the images below: pin each to its digest where you mirror them.
FROM apache/beam_python3.11_sdk:2.77.0 AS beam
FROM gcr.io/dataflow-templates-base/python311-template-launcher-base:20230622_RC00 AS launcher

FROM python:3.11-slim-bookworm AS build
WORKDIR /build
COPY scripts/image_layers scripts/tools scripts/build-requirements.txt scripts/tools-requirements.txt scripts/
COPY configs/worker-requirements.txt configs/
RUN scripts/image_layers pins /opt/callpress
COPY setup.py pyproject.toml README.md LICENSE ./
COPY configs configs
COPY pipelines pipelines
COPY transforms transforms
RUN scripts/image_layers program /opt/callpress . \
    && scripts/image_layers bill /opt/callpress /opt/callpress/licences "$(scripts/tools)"

FROM python:3.11-slim-bookworm
# Beam's boot program and the template launcher are programs of their own: no Python comes with them.
COPY --from=beam /opt/apache/beam /opt/apache/beam
COPY --from=launcher /opt/google/dataflow/python_template_launcher /opt/google/dataflow/python_template_launcher
COPY --from=build /opt/callpress /opt/callpress
COPY LICENSE /opt/callpress/licences/LICENSE
COPY flex_template.py /template/flex_template.py
COPY scripts/container_entry /usr/local/bin/container_entry
# Without it boot makes an environment over the base image's Python, which has nothing of ours.
ENV RUN_PYTHON_SDK_IN_DEFAULT_ENVIRONMENT=1 \
    FLEX_TEMPLATE_PYTHON_PY_FILE=/template/flex_template.py \
    PATH=/opt/callpress/bin:$PATH
RUN useradd --system --uid 10001 --create-home callpress \
    && python -m pip check \
    && callpress --version
# Dataflow mounts folders that are root's for a worker and for the launcher; container_entry becomes
# the user callpress for all else.
ENTRYPOINT ["/usr/local/bin/container_entry"]
