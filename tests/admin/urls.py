"""The URLs of a site with two admins."""

from django.contrib import admin
from django.urls import path

from fleetcache.django.admin import register

staff = admin.AdminSite(name="staff")
register(staff)

urlpatterns = [path("admin/", admin.site.urls), path("staff/", staff.urls)]
