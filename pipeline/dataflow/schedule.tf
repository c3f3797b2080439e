# A daily job: Cloud Scheduler calls flexTemplates.launch. Two service accounts with no more than they need.
#
#     terraform init && terraform apply -var project=... -var bucket=... -var input=gs://... -var image=... -var template=gs://...

terraform {
  required_version = ">= 1.5"
  required_providers {
    google = {
      source  = "hashicorp/google"
      version = ">= 5.0, < 8.0"
    }
  }
}

variable "project" { type = string }
variable "region" {
  type    = string
  default = "europe-west1"
}
variable "bucket" {
  type        = string
  description = "Bucket of the pictures, the results, the template and temporary files."
}
variable "repository" {
  type        = string
  description = "Artifact Registry repository that holds the image."
  default     = "maskbeam"
}
variable "template" {
  type        = string
  description = "Where deploy.sh has staged the template: gs://BUCKET/templates/maskbeam.json."
}
variable "input" { type = string }
variable "model" {
  type    = string
  default = "pets"
}
variable "schedule" {
  type    = string
  default = "0 2 * * *"
}
variable "max_workers" {
  type    = number
  default = 20
}

provider "google" {
  project = var.project
  region  = var.region
}

# The workers, and the machine that the launcher runs on.
resource "google_service_account" "worker" {
  account_id   = "maskbeam-worker"
  display_name = "maskbeam: Dataflow launcher and workers"
}

# Cloud Scheduler, and nothing else.
resource "google_service_account" "trigger" {
  account_id   = "maskbeam-trigger"
  display_name = "maskbeam: launches the scheduled job"
}

locals {
  # To lease work; and to create the job, which the launcher does from its machine.
  worker_roles = ["roles/dataflow.worker", "roles/dataflow.developer"]
}

resource "google_project_iam_member" "worker" {
  for_each = toset(local.worker_roles)
  project  = var.project
  role     = each.value
  member   = google_service_account.worker.member
}

# Objects of this one bucket: pictures are read, results written and, where the input has shrunk, deleted.
resource "google_storage_bucket_iam_member" "worker_objects" {
  bucket = var.bucket
  role   = "roles/storage.objectUser"
  member = google_service_account.worker.member
}

# Beam looks at the temporary bucket's settings before it stages files.
resource "google_storage_bucket_iam_member" "worker_bucket" {
  bucket = var.bucket
  role   = "roles/storage.legacyBucketReader"
  member = google_service_account.worker.member
}

resource "google_artifact_registry_repository_iam_member" "worker" {
  project    = var.project
  location   = var.region
  repository = var.repository
  role       = "roles/artifactregistry.reader"
  member     = google_service_account.worker.member
}

# The job's machines run under the worker account: both who launches the template and who creates the job may say so.
resource "google_service_account_iam_member" "act_as_worker" {
  for_each = {
    trigger = google_service_account.trigger.member
    worker  = google_service_account.worker.member
  }
  service_account_id = google_service_account.worker.name
  role               = "roles/iam.serviceAccountUser"
  member             = each.value
}

resource "google_project_iam_member" "trigger" {
  project = var.project
  role    = "roles/dataflow.developer"
  member  = google_service_account.trigger.member
}

resource "google_storage_bucket_iam_member" "trigger_template" {
  bucket = var.bucket
  role   = "roles/storage.objectViewer"
  member = google_service_account.trigger.member
}

resource "google_cloud_scheduler_job" "daily" {
  name             = "maskbeam-daily"
  region           = var.region
  schedule         = var.schedule
  time_zone        = "Etc/UTC"
  attempt_deadline = "180s"
  # A repeated call is harmless: while the job runs, Dataflow refuses a second one of its name; after it, the day's
  # output is complete and there is nothing left to do.
  retry_config {
    retry_count          = 3
    min_backoff_duration = "30s"
  }
  http_target {
    http_method = "POST"
    uri         = "https://dataflow.googleapis.com/v1b3/projects/${var.project}/locations/${var.region}/flexTemplates:launch"
    headers     = { "Content-Type" = "application/json" }
    body = base64encode(jsonencode({
      launchParameter = {
        jobName              = "maskbeam-daily"
        containerSpecGcsPath = var.template
        parameters = {
          input    = var.input
          model    = var.model
          output   = "gs://${var.bucket}/runs/{date}"
          existing = "resume"
        }
        environment = {
          serviceAccountEmail = google_service_account.worker.email
          tempLocation        = "gs://${var.bucket}/temp"
          stagingLocation     = "gs://${var.bucket}/staging"
          maxWorkers          = var.max_workers
        }
      }
    }))
    oauth_token {
      service_account_email = google_service_account.trigger.email
    }
  }
}
