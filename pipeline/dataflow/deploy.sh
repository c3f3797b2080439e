#!/usr/bin/env bash
# Builds the image, stages the Flex Template, launches a job. Run it from anywhere; it needs docker and gcloud.
#
#     pipeline/dataflow/deploy.sh build            builds and pushes $IMAGE
#     pipeline/dataflow/deploy.sh stage            writes the template file to $TEMPLATE
#     pipeline/dataflow/deploy.sh launch NAME=VALUE ...   launches a job; the names are those of python -m pipeline --help
#
# Environment: IMAGE            REGION-docker.pkg.dev/PROJECT/REPOSITORY/maskbeam:TAG
#              TEMPLATE         gs://BUCKET/templates/maskbeam.json
#              PROJECT, REGION  of the job
#              SERVICE_ACCOUNT  of launcher and workers (schedule.tf makes it)
#              TARGET           cpu (default) or gpu
#              JOB_NAME         of the job; a second job of the same name is refused while the first one runs
#              PYTHON           to write the template with (default: .venv/bin/python)
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd -P)
cd "$root"

need() {
    local name
    for name in "$@"; do
        [[ -n ${!name:-} ]] || { printf 'deploy.sh: set %s\n' "$name" >&2; exit 2; }
    done
}

build() {
    need IMAGE
    docker build -f pipeline/dataflow/Dockerfile --target "${TARGET:-cpu}" --build-arg "IMAGE=$IMAGE" -t "$IMAGE" .
    docker push "$IMAGE"
}

stage() {
    need IMAGE TEMPLATE
    "${PYTHON:-.venv/bin/python}" -m pipeline.dataflow.template --image "$IMAGE" \
        ${SERVICE_ACCOUNT:+--service_account "$SERVICE_ACCOUNT"} |
        gcloud storage cp - "$TEMPLATE"
}

launch() {
    need TEMPLATE PROJECT REGION
    (($#)) || { printf 'deploy.sh: launch needs parameters, as input=gs://...\n' >&2; exit 2; }
    local parameters
    # A separator other than gcloud's default: values may contain commas.
    printf -v parameters '~%s' "$@"
    gcloud dataflow flex-template run "${JOB_NAME:-maskbeam}" --project "$PROJECT" --region "$REGION" \
        --template-file-gcs-location "$TEMPLATE" ${SERVICE_ACCOUNT:+--service-account-email "$SERVICE_ACCOUNT"} \
        --parameters "^~^${parameters#\~}"
}

case ${1:-} in
    build | stage | launch) "$@" ;;
    *) sed -n '2,/^set/{/^#/s/^# \{0,1\}//p}' "${BASH_SOURCE[0]}" >&2; exit 2 ;;
esac
